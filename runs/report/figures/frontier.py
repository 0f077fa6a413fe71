"""The frontier: what a run gained in speech against what it lost in text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ....foundation.run_names import FORGETTING, MISALIGNMENT
from ...evaluations import Evaluation
from ...run import Run
from .figure import Drawing, Figure, drawing
from .over_steps import by_stage, stages
from .style import bars, colour, label, symbol

Point = tuple[float, float, float]
AXES = {
    "accuracy": "accuracy (up and right is better)",
    "loss": "loss on the answers (down and left is better)",
    "kl": "forgetting and misalignment, KL (down and left is better)",
}
TITLES = {
    "accuracy": ("text accuracy, %", "speech accuracy, %"),
    "loss": ("text loss, nats/token", "speech loss, nats/token"),
    "kl": (f"{FORGETTING}, nats", f"{MISALIGNMENT}, nats"),
}


def frontier(runs: Sequence[Run]) -> Figure | None:
    """Draws the path of each run from its start (open) to its end (filled), for each ``split|axes``."""
    found = {}
    for stage in stages(runs):
        for axes, names in (("accuracy", "accuracy"), ("loss", "answer_loss")):
            ways = [_way(run.evaluations.get(stage), names, 100.0 if axes == "accuracy" else 1.0) for run in runs]
            if drawn := _drawn(runs, ways, axes):
                found[f"{stage}|{axes}"] = drawn
        if drawn := _drawn(runs, [_divergences(run) for run in runs], "kl"):
            found[f"{stage}|kl"] = drawn
    axes_found = {axes: words for axes, words in AXES.items() if any(key.split("|")[1] == axes for key in found)}
    note = "Bars: 95 % intervals at the end. Each point is one evaluation."
    return by_stage("frontier", "Speech against text", note, found, {"axes": axes_found})


def _way(evaluation: Evaluation | None, name: str, scale: float) -> list[tuple[int, Point, Point]]:
    """Returns (step, text, speech) at the steps that have both."""
    if evaluation is None:
        return []
    text = {step: point for step, *point in evaluation.series(f"text_{name}")}
    speech = {step: point for step, *point in evaluation.series(f"speech_{name}")}
    return [(step, _scaled(text[step], scale), _scaled(speech[step], scale)) for step in text if step in speech]


def _scaled(point: Sequence[float], scale: float) -> Point:
    value, low, high = (scale * part for part in point)
    return value, low, high


def _divergences(run: Run) -> list[tuple[int, Point, Point]]:
    forgetting, misalignment = dict(run.metrics.get(FORGETTING, [])), dict(run.metrics.get(MISALIGNMENT, []))
    nothing = (math.nan, math.nan)
    return [
        (step, (forgetting[step], *nothing), (misalignment[step], *nothing))
        for step in sorted(forgetting)
        if step in misalignment
    ]


def _drawn(runs: Sequence[Run], ways: Sequence[list[tuple[int, Point, Point]]], axes: str) -> Drawing | None:
    numbered = enumerate(zip(runs, ways, strict=True))
    traces = [trace for index, (run, way) in numbered if way for trace in _trace(run, way, index)]
    if not traces:
        return None
    across, up = TITLES[axes]
    return drawing(traces, across, up, showlegend=len(runs) > 1)


def _trace(run: Run, way: list[tuple[int, Point, Point]], index: int) -> list[Any]:
    shade = colour(index)
    steps = [step for step, _, _ in way]
    path = go.Scatter(
        x=[text[0] for _, text, _ in way],
        y=[speech[0] for _, _, speech in way],
        customdata=steps,
        name=label(run.name),
        legendgroup=str(index),
        mode="lines+markers+text" if len(way) > 1 else "markers+text",
        text=[f"step {step}" if step in (steps[0], steps[-1]) else "" for step in steps],
        textposition="top left" if index % 2 else "top right",  # beside the bars, and beside the other run's
        line={"color": shade, "width": 1.5, "dash": "dot"},
        marker={
            "color": shade,
            "size": [11 if step == steps[-1] else 8 for step in steps],
            "symbol": [symbol(index) if step == steps[-1] else f"{symbol(index)}-open" for step in steps],
        },
        hovertemplate=f"{label(run.name)}, step %{{customdata}}<br>text %{{x:.4g}}, speech %{{y:.4g}}<extra></extra>",
    )
    _, text, speech = way[-1]
    ends = go.Scatter(
        x=[text[0]],
        y=[speech[0]],
        error_x=bars([text]),
        error_y=bars([speech]),
        name=label(run.name),
        legendgroup=str(index),
        showlegend=False,
        mode="markers",
        marker={"color": shade, "size": 11, "symbol": symbol(index)},
        hoverinfo="skip",
    )
    return [path, ends]

"""Figures of what the model answers: accuracies, losses and the hearing gap over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ....evaluation import MODALITIES
from ....foundation.run_names import TRAIN_LOSS, cross_entropy, stage_key
from ...run import Run
from .figure_style import DASHES, MODALITY_COLOURS, SYMBOLS, Figure, colour, curve, figure, label

TRAINING = (
    (TRAIN_LOSS, "solid"),
    (stage_key("val", cross_entropy("text")), "dash"),
    (stage_key("val", cross_entropy("speech")), "dot"),
)
"""Metrics that are drawn, with their dashes."""

MAX_POINTS = 1500
"""Points of a training curve: a screen has no more."""


def accuracies(runs: Sequence[Run]) -> dict[str, Figure]:
    """Accuracy of text and speech over steps with Wilson intervals, by split."""
    return _by_split(runs, "accuracy", "accuracy, %", 100.0, rangemode="tozero")


def answer_losses(runs: Sequence[Run]) -> dict[str, Figure]:
    """Loss on the answers of text and speech over steps, by split."""
    return _by_split(runs, "answer_loss", "answer loss, nats/token", 1.0)


def _by_split(runs: Sequence[Run], metric: str, title: str, scale: float, **axis: Any) -> dict[str, Figure]:
    found = {}
    for stage in dict.fromkeys(stage for run in runs for stage in run.evaluations):
        traces = []
        for index, run in enumerate(runs):
            for modality in MODALITIES:
                series = run.evaluations[stage].series(f"{modality}_{metric}") if stage in run.evaluations else []
                if not series:
                    continue
                several = len(runs) > 1
                name = f"{run.name}, {modality}" if several else modality
                shade = colour(index) if several else MODALITY_COLOURS[modality]
                points = [(v * scale, low * scale, high * scale) for _, v, low, high in series]
                hover = f"{label(name)}<br>step %{{x}}: %{{y:.4g}}<extra></extra>"
                style = {"dash": DASHES[modality] if several else "solid", "symbol": SYMBOLS[modality]}
                steps = [step for step, *_ in series]
                traces.append(curve(name, steps, points, shade, hovertemplate=hover, **style))
        if traces:
            found[stage] = figure(traces, "step", title, yaxis={"title": {"text": title}, "zeroline": False, **axis})
    return found


def hearing_gaps(runs: Sequence[Run]) -> dict[str, Figure]:
    """Hearing gap over steps with bootstrap intervals, by split."""
    found = {}
    for stage in dict.fromkeys(stage for run in runs for stage in run.evaluations):
        traces = []
        for index, run in enumerate(runs):
            series = run.evaluations[stage].series("hearing_gap") if stage in run.evaluations else []
            if series:
                hover = f"{label(run.name)}<br>step %{{x}}: %{{y:.3g}} nats per token<extra></extra>"
                points = [point for _, *point in series]
                steps = [step for step, *_ in series]
                traces.append(curve(run.name, steps, points, colour(index), hovertemplate=hover))  # type: ignore[arg-type]
        if traces:
            axis = {"title": {"text": "hearing gap, nats/token"}, "zeroline": True}
            found[stage] = figure(traces, "step", "", yaxis=axis, showlegend=len(traces) > 1)
    return found


def training(runs: Sequence[Run]) -> Figure | None:
    """The training loss, and the validation's cross-entropies where the module logs them."""
    traces = []
    for index, run in enumerate(runs):
        for key, dash in TRAINING:
            points = _thinned(run.metrics.get(key, []))
            if not points:
                continue
            several = len(runs) > 1
            shade = colour(index) if several else colour([key for key, _ in TRAINING].index(key) + 2)
            traces.append(
                go.Scatter(
                    x=[step for step, _ in points],
                    y=[value for _, value in points],
                    name=label(f"{run.name}, {key}" if several else key),
                    mode="lines" if key == TRAIN_LOSS else "lines+markers",
                    line={"color": shade, "dash": dash if several else "solid", "width": 1.6},
                    hovertemplate=label(key) + "<br>step %{x}: %{y:.4g}<extra></extra>",
                )
            )
    return figure(traces, "step", "loss, nats/token") if traces else None


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most :data:`MAX_POINTS`: means over equal stretches, so that a spike is not lost by its place."""
    if len(points) <= MAX_POINTS:
        return list(points)
    width = math.ceil(len(points) / MAX_POINTS)
    chunks = [points[i : i + width] for i in range(0, len(points), width)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]

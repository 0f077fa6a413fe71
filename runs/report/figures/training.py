"""The losses while training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from ....foundation.run_names import TRAIN_LOSS, cross_entropy, stage_key
from ...metrics import Points
from ...run import Run
from .figure import Figure, drawing, single
from .style import colour, label

CURVES = (
    (TRAIN_LOSS, "solid"),
    (stage_key("val", cross_entropy("text")), "dash"),
    (stage_key("val", cross_entropy("speech")), "dot"),
)
"""Metrics to draw, with their dashes."""

MAX_POINTS = 1500
"""Maximum points of a training curve: a screen shows no more."""


def training(runs: Sequence[Run]) -> Figure | None:
    """Draws the training loss, and the validation cross-entropies if the module logs them."""
    traces = []
    several = len(runs) > 1
    for index, run in enumerate(runs):
        for place, (key, dash) in enumerate(CURVES):
            points = thinned(run.metrics.get(key, []))
            if not points:
                continue
            shade = colour(index) if several else colour(place + 2)
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
    drawn = drawing(traces, "step", "loss, nats/token") if traces else None
    return single("training", "Losses while training", drawn)


def thinned(points: Points) -> Points:
    """Keeps at most :data:`MAX_POINTS`: means over equal stretches, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return list(points)
    width = math.ceil(len(points) / MAX_POINTS)
    chunks = [points[i : i + width] for i in range(0, len(points), width)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]

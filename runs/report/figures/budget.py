"""The text budget: the increase of the loss against the allowed one, and the weight that follows it."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ....foundation.run_names import BUDGET_WEIGHT, budget_key, budget_texts
from ...metrics import Points
from ...run import Run
from .figure import Figure, drawing, single
from .style import NEUTRAL, colour, curve, label

NOTE = (
    "Paired with the untouched model's loss on the same passages. Bars: 95 % intervals over passages. Dashed: the "
    "budget. Two points at the last step: before and after the rollback."
)


DASHED = {"line": {"color": NEUTRAL, "dash": "dash", "width": 1}}
"""Style of the line that marks a budget."""


def budget(runs: Sequence[Run]) -> list[Figure]:
    """Draws the increases, and the controlled weights where there are any."""
    increases: list[go.Scatter] = []
    weights: list[go.Scatter] = []
    allowed: set[float] = set()
    for run in runs:
        for text in budget_texts(run.metrics):
            shade, name = colour(len(increases)), f"{run.name}, {text}" if len(runs) > 1 else text
            found = [run.metrics.get(budget_key(text, key), []) for key in ("increase", "low", "high")]
            points = [(row[0][1], row[1][1], row[2][1]) for row in zip(*found, strict=False)]
            increases.append(curve(name, [step for step, _ in found[0]][: len(points)], points, shade))
            allowed |= {value for _, value in run.metrics.get(budget_key(text, "allowed"), [])}
            weights += [_weight(f"{name}, {key}", run.metrics[key], shade) for key in _weights(run, text)]
    if not increases:
        return []
    lines = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, **DASHED} for y in sorted(allowed)]
    drawn = drawing(increases, "step", "increase of the loss, nats/token", shapes=lines)
    axis = {"title": {"text": "weight"}, "type": "log"}
    other = drawing(weights, "step", "weight", yaxis=axis) if weights else None
    figures = [
        single("budget", "Loss on text since the untouched model, and its budget", drawn, NOTE),
        single("budget-weight", "Weight of the remedy", other),
    ]
    return [figure for figure in figures if figure is not None]


def _weights(run: Run, text: str) -> list[str]:
    return [key for key in run.metrics if key.startswith(budget_key(text, BUDGET_WEIGHT))]


def _weight(name: str, points: Points, shade: str) -> go.Scatter:
    return go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        name=label(name),
        mode="lines+markers",
        line={"color": shade, "shape": "hv", "width": 2},
        marker={"color": shade, "size": 5},
    )

"""How far the importance of each arm shifted, beside its scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ....evaluation import mean_interval
from ...measurements import ShiftRecord
from ..study_data import StudyData
from ..tables.shift import JS_BOUNDS, value_of
from .figure import Drawing, Figure, drawing, one_of
from .style import NEUTRAL, bars, colour, label, marker

NOTE = "Rings: single runs. Bar: how far another probe of half the size would differ without any training."


def shift_by_arm(data: StudyData) -> Figure | None:
    """Draws the JS distance by arm with its interval, the single runs, and the scale, for each probe and estimator."""
    options = {}
    for pair in data.pairs:
        arms = [(index, arm.name, arm.shifts(pair)) for index, arm in enumerate(data.trained)]
        arms = [entry for entry in arms if entry[2]]
        if arms:
            options[", ".join(pair)] = _strip(arms)
    return one_of("shift-by-arm", "Shift beside its scale", options, NOTE)


def _strip(arms: Sequence[tuple[int, str, Sequence[ShiftRecord]]]) -> Drawing:
    traces: list[Any] = []
    for index, name, shifts in arms:
        values = [value_of("js")(shift) for shift in shifts]
        mean, low, high = mean_interval(values, bounds=JS_BOUNDS)
        shown = label(name)
        spread = bars([(mean, low, high)]) if len(values) > 1 else None
        style: dict[str, Any] = {"mode": "markers", "marker": marker(index, 11), "name": shown}
        traces.append(go.Scatter(x=[shown], y=[mean], error_y=spread, **style))
        small = {"color": colour(index), "size": 6, "symbol": "circle-open"}
        name = f"{shown}, runs"
        traces.append(go.Scatter(x=[shown] * len(values), y=values, mode="markers", marker=small, name=name))
    nulls = [(label(name), shift["metrics"]["js"]["null_p95"]) for _, name, shifts in arms for shift in shifts[:1]]
    scale = {"color": NEUTRAL, "size": 22, "symbol": "line-ew", "line": {"width": 2, "color": NEUTRAL}}
    x, y = [name for name, _ in nulls], [value for _, value in nulls]
    traces.append(go.Scatter(x=x, y=y, mode="markers", marker=scale, name="half size, 95 %"))
    axis = {"title": {"text": "JS distance of layer shares"}, "rangemode": "tozero", "zeroline": False}
    return drawing(traces, "", "", yaxis=axis, showlegend=False)

"""Plotly figures that are alternatives of each other, behind one menu."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

HEIGHT = 460


def blank(x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure with titled axes."""
    return go.Figure(layout={"template": "plotly_white", "height": HEIGHT, **layout}).update_layout(
        xaxis_title=x, yaxis_title=y
    )


def one_of(options: Mapping[str, go.Figure]) -> go.Figure | None:
    """One figure with a menu of the alternatives; the first is shown. None without any.

    Axis titles, their direction and shapes change with the choice; all other settings are the first one's.

    Args:
        options: Name in the menu -> figure.
    """
    if not options:
        return None
    figures = list(options.values())
    merged = go.Figure(layout=figures[0].layout)
    owners: list[int] = []
    for number, figure in enumerate(figures):
        for trace in figure.data:
            merged.add_trace(trace)
            merged.data[-1].visible = number == 0
            owners.append(number)
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [o == number for o in owners]}, _layout(figure)]}
        for number, (name, figure) in enumerate(options.items())
    ]
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    merged.update_layout(updatemenus=[menu], margin={"t": 70})
    return merged


def _layout(figure: go.Figure) -> dict[str, Any]:
    axes = {"xaxis": figure.layout.xaxis, "yaxis": figure.layout.yaxis}
    found: dict[str, Any] = {f"{name}.title.text": axis.title.text or "" for name, axis in axes.items()}
    return found | {f"{name}.autorange": axis.autorange or True for name, axis in axes.items()}

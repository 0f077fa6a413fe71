"""A figure of a page: its drawings as plain data, and the selections that choose among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

Drawing = dict[str, Any]
"""``data`` and ``layout`` of Plotly as JSON values."""

OWN = "shown"
"""Name of a selection shown with its figure; all others belong to the section."""


@dataclass(frozen=True)
class Figure:
    """A figure of a page, for pages about runs and about studies alike.

    Attributes:
        id: Of its element, and of the files it is saved to.
        title: Above it.
        drawn: The drawings, by the values of the selections joined with ``|``; without selections one, by ``""``.
        note: Below it: how to read it.
        choices: Selection -> value -> text. Selections with the same name in a section are merged.
        follows: The effect of the section's slider: ``mark`` the step, draw the ``profile`` at it, or nothing.
        steps: Where the slider stops.
        wide: Whether it spans the page.
    """

    id: str
    title: str
    drawn: Mapping[str, Drawing]
    note: str = ""
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    follows: str = ""
    steps: Sequence[int] = ()
    wide: bool = False

    @property
    def own_choices(self) -> Mapping[str, str]:
        """Value -> text of the selection shown with the figure; empty without one."""
        return self.choices.get(OWN, {})


def single(identity: str, title: str, drawing: Drawing | None, note: str = "", wide: bool = False) -> Figure | None:
    """Builds a figure from one drawing; None without it."""
    return None if drawing is None else Figure(identity, title, {"": drawing}, note, wide=wide)


def one_of(identity: str, title: str, options: Mapping[str, Drawing], note: str = "") -> Figure | None:
    """Builds a wide figure with its own selection among the options; None without any."""
    if not options:
        return None
    return Figure(identity, title, options, note, {OWN: {name: name for name in options}}, wide=True)


def drawing(traces: Sequence[Any], x: str, y: str, **layout: Any) -> Drawing:
    """Draws traces with titled axes. The page sets backgrounds, fonts and grid colours.

    Args:
        traces: Of Plotly.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        layout: Changes to Plotly's layout.
    """
    settings: dict[str, Any] = {
        "template": {},
        "margin": {"l": 62, "r": 16, "t": 30, "b": 46},
        "xaxis": {"title": {"text": x}, "zeroline": False, **_ticks(traces, x)},
        "yaxis": {"title": {"text": y}, "zeroline": False},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "closest",
    }
    drawn = go.Figure(list(traces), layout={**settings, **layout}).to_plotly_json()
    return {"data": rounded(drawn["data"]), "layout": rounded(drawn["layout"])}


def _ticks(traces: Sequence[Any], x: str) -> dict[str, Any]:
    """Marks one or two steps alone: an axis of its own choice would go from -1 to 1 around step 0."""
    steps = {place for trace in traces for place in (() if trace.x is None else trace.x)} if x == "step" else set()
    return {"tickvals": sorted(steps)} if 0 < len(steps) <= 2 else {}


def rounded(value: Any) -> Any:
    """Converts to plain lists and dicts with five-digit numbers: a third of the size, with no visible difference."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value]

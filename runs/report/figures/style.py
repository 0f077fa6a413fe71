"""Shared style of a page's figures: colours, markers, error bars and curves."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito (2008), without black and yellow: distinguishable for colour-blind readers, on light and dark
# backgrounds.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
NEUTRAL = "#8a8f98"
DASHES = {"text": "solid", "speech": "dot"}
SYMBOLS = {"text": "circle", "speech": "diamond"}
RUN_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
PATTERNS = ("", "/", "x", "-", "+", ".")
MODALITY_COLOURS = {"text": COLOURS[0], "speech": COLOURS[1]}


def colour(index: int) -> str:
    """Returns the colour of the run with this index; they repeat after six runs."""
    return COLOURS[index % len(COLOURS)]


def symbol(index: int) -> str:
    """Returns the symbol of the run with this index: in grey print its colour does not tell it from the others."""
    return RUN_SYMBOLS[index % len(RUN_SYMBOLS)]


def pattern(index: int) -> str:
    """Returns what the bars of the run with this index are filled with, for the same reason."""
    return PATTERNS[index % len(PATTERNS)]


def marker(index: int, size: int) -> dict[str, Any]:
    """Returns the marker of the arm with this index: where colours repeat, another shape."""
    return {"color": colour(index), "size": size, "symbol": ("circle", "diamond", "square")[index // len(COLOURS) % 3]}


def line(index: int) -> dict[str, Any]:
    """Returns the line of the arm with this index: where colours repeat, another dash."""
    return {"color": colour(index), "dash": ("solid", "dash", "dashdot")[index // len(COLOURS) % 3]}


def label(name: str) -> str:
    """Escapes a name for use in a figure: Plotly would interpret tags in it."""
    return html.escape(name)


def bars(points: Sequence[tuple[float, float, float]]) -> dict[str, Any] | None:
    """Makes error bars from (value, low, high); None where no limit is known."""
    if not any(math.isfinite(low) and math.isfinite(high) for _, low, high in points):
        return None
    above = [max(0.0, high - value) if math.isfinite(high) else 0.0 for value, _, high in points]
    below = [max(0.0, value - low) if math.isfinite(low) else 0.0 for value, low, _ in points]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}


def curve(
    name: str, steps: Sequence[int], points: Sequence[tuple[float, float, float]], shade: str, **style: Any
) -> Any:
    """Draws a line over steps with error bars.

    Args:
        name: In the legend.
        steps: Where.
        points: (value, low, high) at each step.
        shade: Colour.
        style: More settings of the trace; ``dash`` and ``symbol`` of line and marker.
    """
    dash, symbol = style.pop("dash", "solid"), style.pop("symbol", "circle")
    return go.Scatter(
        x=list(steps),
        y=[value for value, _, _ in points],
        error_y=bars(points),
        name=label(name),
        mode="lines+markers",
        line={"color": shade, "dash": dash, "width": 2},
        marker={"color": shade, "symbol": symbol, "size": 7},
        **style,
    )

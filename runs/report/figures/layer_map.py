"""Heat maps of a study: layers by arm, or by kind of matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from statistics import fmean

import plotly.graph_objects as go

from .figure import Drawing, drawing
from .style import label

Cells = Mapping[tuple[int, str], float]
"""(Layer, column) -> value."""


def mean_of(found: Sequence[Cells]) -> dict[tuple[int, str], float]:
    """Returns the mean of each cell over the maps that have it."""
    places = dict.fromkeys(place for cells in found for place in cells)
    return {place: fmean(cells[place] for cells in found if place in cells) for place in places}


def signed(cells: Cells, title: str) -> Drawing:
    """Draws red where it grew, blue where it shrank."""
    limit = max(map(abs, cells.values())) or 1.0
    return _drawn(cells, {"colorscale": "RdBu_r", "zmin": -limit, "zmax": limit}, title)


def logarithmic(cells: Cells) -> Drawing:
    """Draws the logarithm, since arms differ by orders of magnitude; what did not move stays blank."""
    shades = {place: log10(value) for place, value in cells.items() if value > 0}
    return _drawn(shades, {"colorscale": "Viridis"}, "log10 of |dW| / |W|", absent=cells)


def _drawn(cells: Cells, style: Mapping[str, object], title: str, absent: Cells | None = None) -> Drawing:
    columns = list(dict.fromkeys(column for _, column in absent or cells))
    layers = sorted({layer for layer, _ in absent or cells})
    heat = go.Heatmap(
        x=[label(column) for column in columns],
        y=layers,
        z=[[cells.get((layer, column)) for column in columns] for layer in layers],
        colorbar={"title": {"text": title, "side": "right"}},
        hovertemplate="%{x}, layer %{y}: %{z:.3g}<extra></extra>",
        **style,
    )
    return drawing([heat], "", "decoder layer")

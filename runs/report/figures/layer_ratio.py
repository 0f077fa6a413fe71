"""How each layer's total importance changed."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from ...run import Run
from .figure import Drawing, Figure, drawing
from .pairs import DEPTH, by_pair, limits_of, pairs_of
from .style import NEUTRAL, colour, curve, symbol

NOTE = "Below 1, a layer lost importance in absolute terms. Bars: 90 % paired bootstrap over examples."
TO_NOTHING = 1e100
"""A ratio to a layer with zero importance, as an ablation may find, is not drawn."""


def layer_ratio(runs: Sequence[Run]) -> Figure | None:
    """Draws each layer's total at the end over that at the start, if there is a shift."""
    return by_pair("ratio", "Layer totals, end over start", NOTE, _drawings(runs), runs)


def _drawings(runs: Sequence[Run]) -> dict[str, Drawing]:
    found = {}
    for probe, estimator in pairs_of(runs):
        traces = []
        for index, run in enumerate(runs):
            lines = run.importance.of(probe, estimator)
            shift = lines[-1].get("shift") if len(lines) > 1 else None
            if shift is None:
                continue
            layers = list(shift["layers"].values())
            points = [limits_of(layer) if layer["value"] < TO_NOTHING else (nan, nan, nan) for layer in layers]
            hover = "layer %{x}: x%{y:.3g}<extra></extra>"
            style = {"symbol": symbol(index), "hovertemplate": hover}
            traces.append(curve(run.name, range(len(layers)), points, colour(index), **style))
        if traces:
            one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"color": NEUTRAL}}
            axis = "total, end / start"
            found[f"{probe}|{estimator}"] = drawing(traces, DEPTH, axis, shapes=[one], showlegend=len(traces) > 1)
    return found

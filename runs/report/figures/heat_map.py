"""Where in the LLM the importance lies: layer by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ...measurements import Measurement
from ...run import Run
from .figure import Drawing, Figure, drawing
from .pairs import DEPTH, by_pair, pairs_of

VIEWS = {"share": "share of each layer", "change": "change of the share since the first measurement"}


def heat_maps(runs: Sequence[Run]) -> list[Figure]:
    """Draws one heat map per run; all runs share the colour range."""
    found = []
    for index, (run, drawn) in enumerate(zip(runs, _drawings(runs), strict=True)):
        title = "Layer by step" + (f": {run.name}" if len(runs) > 1 else "")
        note = "One column a measurement; the frame is the slider's step."
        figure = by_pair(f"heat-{index}", title, note, drawn, runs, {"view": VIEWS}, "mark")
        found += [figure] if figure else []
    return found


def _drawings(runs: Sequence[Run]) -> list[dict[str, Drawing]]:
    """Draws layer by step of each run, for each ``probe|estimator|view``; the runs share the range of the colours."""
    drawn: list[dict[str, Drawing]] = [{} for _ in runs]
    for probe, estimator in pairs_of(runs):
        for view in VIEWS:
            lines = [run.importance.of(probe, estimator) for run in runs]
            tables = [_table(found, view) for found in lines]
            shown = [v for table in tables for row in table for v in row if math.isfinite(v)]
            for place, found, table in zip(drawn, lines, tables, strict=True):
                if found:
                    place[f"{probe}|{estimator}|{view}"] = _heat_map(found, table, view, shown)
    return drawn


def _table(lines: Sequence[Measurement], view: str) -> list[list[float]]:
    """Returns percent by layer and step; for the view ``change``, less the first step's."""
    layers = list(lines[0]["shares"]) if lines else []
    shares = [[100 * line["shares"].get(layer, math.nan) for line in lines] for layer in layers]
    return shares if view == "share" else [[value - row[0] for value in row] for row in shares]


def _heat_map(lines: Sequence[Measurement], table: list[list[float]], view: str, shown: Sequence[float]) -> Drawing:
    limit = max(map(abs, shown), default=0.0) or 1e-9
    scale: dict[str, Any] = {"colorscale": "Cividis", "zmin": min(shown, default=0.0), "zmax": limit}
    if view != "share":
        scale = {"colorscale": "RdBu", "reversescale": True, "zmin": -limit, "zmax": limit}
    unit = "%" if view == "share" else "points"
    trace = go.Heatmap(
        x=[str(line["step"]) for line in lines],
        y=list(range(len(table))),
        z=table,
        hovertemplate="step %{x}, layer %{y}: %{z:.3g} " + unit + "<extra></extra>",
        colorbar={"title": {"text": unit, "side": "top"}, "thickness": 12, "len": 0.9},
        **scale,
    )
    return drawing([trace], "step", DEPTH, xaxis={"title": {"text": "step"}, "type": "category"})

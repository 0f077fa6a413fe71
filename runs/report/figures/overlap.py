"""Where the weights moved against where they were important, by arm."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from ....evaluation import common_items, crossed_t
from ..study_data import StudyData
from ..tables.overlap import values_of
from .figure import Drawing, Figure, drawing, one_of
from .style import NEUTRAL, bars, label, marker

TITLE = "Where the weights moved against where they were important"
NOTE = "Bars: 95 % of shuffles stay below them. Crosses: random adapters of the same rank."
BASELINES = {"shuffled lines, 95 %": ("shuffled_p95", "line-ew"), "random adapters": ("random_median", "x-thin")}
"""Name -> figure of a matrix, symbol."""


def overlap(data: StudyData) -> Figure | None:
    """Draws rank correlations, means over matrices and seeds, compared with shuffles and random adapters.

    For each probe and side.
    """
    probes = dict.fromkeys(
        p for arm in data.trained for run in arm.runs.values() for p in (run.change or {}).get("overlap", ())
    )
    options = {f"{probe}, {side}": _strip(data, probe, side) for probe in probes for side in ("rows", "columns")}
    return one_of("overlap", TITLE, options, NOTE)


def _strip(data: StudyData, probe: str, side: str) -> Drawing:
    traces: list[Any] = []
    baselines: dict[str, list[tuple[str, float]]] = {name: [] for name in BASELINES}
    for index, arm in enumerate(data.trained):
        changes = [run.change["overlap"] for run in arm.runs.values() if run.change is not None]
        runs = [change[probe]["matrices"] for change in changes if probe in change]
        if not runs:
            continue
        found = crossed_t(common_items([values_of(run, side, "spearman") for run in runs])[0])
        name = label(arm.name)
        style: dict[str, Any] = {"mode": "markers", "marker": marker(index, 11), "name": name}
        traces.append(go.Scatter(x=[name], y=[found.estimate], error_y=bars([found[:3]]), **style))
        for title, (figure, _) in BASELINES.items():
            if values := [value for run in runs for value in values_of(run, side, figure).values()]:
                baselines[title].append((name, fmean(values)))
    for title, points in baselines.items():
        line = {"width": 2, "color": NEUTRAL}
        style = {"color": NEUTRAL, "size": 18, "symbol": BASELINES[title][1], "line": line}
        x, y = [name for name, _ in points], [value for _, value in points]
        traces.append(go.Scatter(x=x, y=y, mode="markers", marker=style, name=title))
    return drawing(traces, "", f"rank correlation of importance and |change|, {side}", showlegend=False)

"""Did the weights move where they were important, more than shuffled lines and random adapters would?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from ....evaluation import common_items, crossed_t
from ..study_choice import blank, one_of
from ..study_data import StudyData
from ..tables.comparison import Table
from ..tables.study_tables import DASH, interval
from .figure_style import NEUTRAL, label, marker

_NOTE = (
    "Rank correlation, over the rows or the columns of a matrix, of the untouched LLM's importance with |change| "
    "(callback WeightChange): mean over matrices and seeds. Shuffled lines give 0; beyond them: matrices above the "
    "95 % of their shuffles. Random adapters: of the same rank as the LoRA; above them: the mean difference to their "
    "median. In brackets 95 % intervals over seeds and matrices (crossed t), with one seed over matrices only. Any "
    "update along outlier channels correlates: full tuning stands beside LoRA as the yardstick."
)
_HEAD = ["arm", "probe", "lines", "rank correlation", "beyond shuffled", "random adapters", "above random adapters"]


def overlap_table(data: StudyData) -> Table | None:
    """One row an arm, probe and side; None where no run wrote its change down."""
    rows = []
    for arm in data.trained:
        changes = [run.change for run in arm.runs.values() if run.change is not None]
        for probe in dict.fromkeys(probe for change in changes for probe in change["overlap"]):
            found = [change["overlap"][probe]["matrices"] for change in changes if probe in change["overlap"]]
            rows += [[arm.name, probe, side, *_cells(found, side)] for side in ("rows", "columns")]
    return Table("Change and importance inside the matrices", _HEAD, rows, _NOTE) if rows else None


def overlap_figure(data: StudyData) -> go.Figure | None:
    """Rank correlation by arm, mean over matrices and seeds, with what shuffles and random adapters give.

    A choice of probe and side.
    """
    probes = dict.fromkeys(
        p for arm in data.trained for run in arm.runs.values() for p in (run.change or {}).get("overlap", ())
    )
    return one_of({f"{probe}, {side}": _strip(data, probe, side) for probe in probes for side in ("rows", "columns")})


def _strip(data: StudyData, probe: str, side: str) -> go.Figure:
    drawn = blank("", f"rank correlation of importance and |change|, {side}")
    baselines: dict[str, list[tuple[str, float]]] = {"shuffled lines, 95 %": [], "random adapters": []}
    for index, arm in enumerate(data.trained):
        changes = [run.change["overlap"] for run in arm.runs.values() if run.change is not None]
        runs = [change[probe]["matrices"] for change in changes if probe in change]
        if not runs:
            continue
        mean, low, high = crossed_t(common_items([_values(run, side, "spearman") for run in runs])[0])[:3]
        bars = {"type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low]}
        name = label(arm.name)
        drawn.add_scatter(x=[name], y=[mean], error_y=bars, mode="markers", marker=marker(index, 11), name=name)
        for title, figure in zip(baselines, ("shuffled_p95", "random_median"), strict=True):
            if values := [value for run in runs for value in _values(run, side, figure).values()]:
                baselines[title].append((name, fmean(values)))
    for (title, points), dash in zip(baselines.items(), ("line-ew", "x-thin"), strict=True):
        style = {"color": NEUTRAL, "size": 18, "symbol": dash, "line": {"width": 2, "color": NEUTRAL}}
        drawn.add_scatter(x=[n for n, _ in points], y=[v for _, v in points], mode="markers", marker=style, name=title)
    return drawn.update_layout(showlegend=False)


def _cells(runs: Sequence[list[dict[str, Any]]], side: str) -> list[str]:
    """Of one arm and probe; a list of matrices a run."""
    actual = [_values(run, side, "spearman") for run in runs]
    lines = [matrix[side] for run in runs for matrix in run]
    beyond = sum(line["spearman"] > line["shuffled_p95"] for line in lines)
    random = [_values(run, side, "random_median") for run in runs]
    cells = [interval(crossed_t(common_items(actual)[0]), signed=True), f"{beyond} of {len(lines)}"]
    if not all(random):
        return [*cells, DASH, DASH]
    own, drawn = common_items(actual, random)
    above = crossed_t(own - drawn)
    return [*cells, f"{drawn.mean():+.3g}", interval(above, signed=True)]


def _values(matrices: Sequence[dict[str, Any]], side: str, figure: str) -> dict[str, float]:
    return {m["name"]: m[side][figure] for m in matrices if m[side][figure] is not None}

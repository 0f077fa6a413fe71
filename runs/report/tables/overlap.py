"""Did the weights move where they were important, more than with shuffled rows and columns or random adapters?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....evaluation import common_items, crossed_t
from ..estimates import interval
from ..study_data import StudyData
from .table import DASH, Table

_NOTE = (
    "Rank correlation, over the rows or the columns of a matrix, of the untouched LLM's importance with |change| "
    "(callback WeightChange): mean over matrices and seeds. Shuffles give 0; beyond them: matrices above the "
    "95 % of their shuffles. Random adapters: of the same rank as the LoRA; above them: the mean difference to their "
    "median. In brackets 95 % intervals over seeds and matrices (crossed t), with one seed over matrices only. Any "
    "update along outlier channels correlates: full fine-tuning is shown beside LoRA as a baseline."
)
_HEAD = ["arm", "probe", "lines", "rank correlation", "beyond shuffled", "random adapters", "above random adapters"]


def overlap_table(data: StudyData) -> Table | None:
    """Makes one row per arm, probe and side; None if no run recorded its change."""
    rows = []
    for arm in data.trained:
        changes = [run.change for run in arm.runs.values() if run.change is not None]
        for probe in dict.fromkeys(probe for change in changes for probe in change["overlap"]):
            found = [change["overlap"][probe]["matrices"] for change in changes if probe in change["overlap"]]
            rows += [[arm.name, probe, side, *_cells(found, side)] for side in ("rows", "columns")]
    return Table("Change and importance inside the matrices", _HEAD, rows, _NOTE) if rows else None


def _cells(runs: Sequence[list[dict[str, Any]]], side: str) -> list[str]:
    """Formats the cells of one arm and probe, from one list of matrices per run."""
    actual = [values_of(run, side, "spearman") for run in runs]
    lines = [matrix[side] for run in runs for matrix in run]
    beyond = sum(line["spearman"] > line["shuffled_p95"] for line in lines)
    random = [values_of(run, side, "random_median") for run in runs]
    cells = [interval(crossed_t(common_items(actual)[0]), signed=True), f"{beyond} of {len(lines)}"]
    if not all(random):
        return [*cells, DASH, DASH]
    own, drawn = common_items(actual, random)
    above = crossed_t(own - drawn)
    return [*cells, f"{drawn.mean():+.3g}", interval(above, signed=True)]


def values_of(matrices: Sequence[dict[str, Any]], side: str, figure: str) -> dict[str, float]:
    """Returns a figure of one side of each matrix that has it."""
    return {m["name"]: m[side][figure] for m in matrices if m[side][figure] is not None}

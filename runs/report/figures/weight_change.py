"""Where the weights moved: layers by arm, and by kind of matrix."""

from __future__ import annotations

from ..study_data import ArmResult, StudyData
from ..study_run import RunResult
from .figure import Figure, one_of, single
from .layer_map import Cells, logarithmic, mean_of

NOTE = "Frobenius norm of the change over that of the weights before, mean over seeds; blank: did not move."
TITLE = "Change of the weights by layer and"


def change_by_arm(data: StudyData) -> Figure | None:
    """Draws layer by arm: relative Frobenius norm of the weights' change, mean over seeds."""
    cells = {}
    for arm in data.trained:
        for (layer, _), value in mean_of([_norms(run, kinds=False) for run in _changed(arm)]).items():
            cells[layer, arm.name] = value
    drawn = logarithmic(cells) if cells else None
    return single("change-by-arm", f"{TITLE} arm", drawn, NOTE, wide=True)


def change_by_kind(data: StudyData) -> Figure | None:
    """Draws layer by kind of matrix: relative norm of the change; for each arm."""
    found = {arm.name: mean_of([_norms(run, kinds=True) for run in _changed(arm)]) for arm in data.trained}
    options = {name: logarithmic(cells) for name, cells in found.items() if cells}
    return one_of("change-by-kind", f"{TITLE} kind of matrix", options, NOTE)


def _changed(arm: ArmResult) -> list[RunResult]:
    return [run for run in arm.runs.values() if run.change is not None]


def _norms(run: RunResult, kinds: bool) -> Cells:
    """Returns the norm of the changes over that of the weights, of each layer (and kind); empty for zeros."""
    sums: dict[tuple[int, str], list[float]] = {}
    for matrix in (run.change or {})["matrices"]:
        if matrix["layer"] is not None:
            sides = sums.setdefault((matrix["layer"], matrix["kind"] if kinds else ""), [0.0, 0.0])
            sides[0] += matrix["norm"] ** 2
            sides[1] += matrix["base_norm"] ** 2
    return {place: (change / base) ** 0.5 for place, (change, base) in sums.items() if base}

"""Where importance came and went: layers by arm, and by kind of matrix."""

from __future__ import annotations

from statistics import fmean

from ..study_data import StudyData
from ..study_run import Pair, RunResult
from .figure import Figure, one_of
from .layer_map import Cells, mean_of, signed

NOTE = "Share at the end less share at the start, mean over seeds."
TITLE = "Change of importance by layer and"
SCALE = "share of importance, change"


def importance_by_arm(data: StudyData) -> Figure | None:
    """Draws layer by arm: share of importance at the end minus share at the start, mean over seeds; for each probe."""
    options = {}
    for pair in data.pairs:
        cells = {}
        for arm in data.trained:
            lines = [(run.first[pair], run.last[pair]) for run in arm.runs.values() if run.shift(pair) is not None]
            for number, layer in enumerate(lines[0][1]["shares"] if lines else []):
                cells[number, arm.name] = fmean(last["shares"][layer] - first["shares"][layer] for first, last in lines)
        if cells:
            options[", ".join(pair)] = signed(cells, SCALE)
    return one_of("importance-by-arm", f"{TITLE} arm", options, NOTE)


def importance_by_kind(data: StudyData) -> Figure | None:
    """Draws layer by kind of matrix: change of each matrix's share, mean over seeds; for each arm and probe."""
    options = {}
    for arm in data.trained:
        for pair in data.leading_pairs:
            found = [cells for run in arm.runs.values() if (cells := _matrix_changes(run, pair))]
            if found:
                options[f"{arm.name}; {', '.join(pair)}"] = signed(mean_of(found), SCALE)
    return one_of("importance-by-kind", f"{TITLE} kind of matrix", options, NOTE)


def _matrix_changes(run: RunResult, pair: Pair) -> Cells:
    """Computes the change between the run's first and last snapshots; empty if they are gone."""
    if run.shift(pair) is None:
        return {}
    first, last = run.ends(pair)
    if first is None or last is None:
        return {}
    try:
        before, after = (end.shares(pair[1], "matrix") for end in (first, last))
    except ValueError:
        return {}
    table = [m for m in first.table if m.layer is not None and m.name in before and m.name in after]
    return {(m.layer, m.kind): after[m.name] - before[m.name] for m in table if m.layer is not None}

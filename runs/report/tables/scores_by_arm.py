"""Scores of a study in the layout of the paper: one row per arm, one column per measure."""

from __future__ import annotations

from ...study.spec import UNTOUCHED
from ..estimates import METHOD, score, seeds_shown, shown
from ..study_data import ArmResult, StudyData
from ..study_run import Measure
from .table import DASH, Table


def scores_table(data: StudyData) -> Table:
    """Makes one row per arm, one column per measure, with 95 % intervals over seeds and items."""
    measures = data.measures
    rows = []
    for arm in data.arms:
        cells = [arm.name, DASH if arm.name == UNTOUCHED else seeds_shown(len(arm.runs))]
        rows.append(cells + [_score(arm, measure) for measure in measures])
    note = (
        "T2T: written question, written answer; S2T: spoken question, written answer; % right, losses in nats per "
        f"token (mean over texts). In brackets 95 % intervals over seeds and items, {METHOD}."
    )
    return Table("Scores by arm", ["arm", "seeds", *(measure.label for measure in measures)], rows, note)


def _score(arm: ArmResult, measure: Measure) -> str:
    runs = arm.scores.get(measure)
    return shown(measure, score(runs, measure), signed=False) if runs else DASH

"""Is text lost where importance shifts?"""

from __future__ import annotations

from math import isnan

from ....evaluation import Interval, correlation
from ..estimates import interval
from ..relations import relations
from ..study_data import StudyData
from .table import DASH, Table

_NOTE = (
    "One point a run, at all points of the grids; text lost since the untouched LLM on the same items, more is worse. "
    "In brackets 95 % bootstrap intervals over whole arms, for runs of an arm are alike; with fewer than five arms "
    "they are [-1, 1]. Within arms, over runs: Spearman's partial correlation given the arm, which differences between "
    "arms cannot make. Nothing is adjusted for the number of rows, and a correlation over arms does not say what "
    "causes what."
)


def correlation_table(data: StudyData) -> Table | None:
    """Returns Spearman's and Pearson's correlation of each relation with intervals; None without three runs."""
    rows = []
    for relation in relations(data):
        arms = [run.arm for run in relation.runs]
        spearman = correlation(relation.x, relation.y, clusters=arms)
        pearson = correlation(relation.x, relation.y, ranks=False, clusters=arms)
        within = correlation(relation.x, relation.y, groups=arms)
        rows.append([relation.shift, relation.loss, str(len(arms)), *map(_shown, (spearman, pearson, within))])
    head = ["shift", "text lost", "runs", "Spearman", "Pearson", "Spearman within arms"]
    return Table("Shift and text lost, over runs", head, rows, _NOTE) if rows else None


def _shown(found: Interval) -> str:
    return DASH if isnan(found.estimate) else interval(found, signed=True)

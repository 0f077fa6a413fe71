"""Every arm of a study against one of them, or against the untouched LLM."""

from __future__ import annotations

from ....evaluation import shown_p
from ...study.spec import UNTOUCHED
from ..estimates import PAIRED, adjusted, compare, seeds_shown, share_items, shown
from ..study_data import StudyData
from .table import Table


def against_reference(data: StudyData) -> Table | None:
    """Compares every arm with the plan's reference."""
    return difference_table(data, data.study.reference)


def against_untouched(data: StudyData) -> Table | None:
    """Compares every arm with the untouched LLM."""
    return difference_table(data, UNTOUCHED)


def difference_table(data: StudyData, against: str) -> Table | None:
    """Compares every arm with one, on the same items, with Holm's adjustment for each measure; None without that arm.

    Args:
        data: The study.
        against: Name of an arm, or of the untouched LLM.
    """
    reference = data.arm(against)
    if reference is None:
        return None
    rows: list[list[str]] = []
    for measure in data.measures:
        if measure not in reference.scores:
            continue
        theirs = reference.by_seed(measure)
        others = [arm for arm in data.arms if arm is not reference and arm.scores.get(measure)]
        others = [arm for arm in others if share_items(arm.by_seed(measure), theirs)]
        found = [compare(arm, reference, measure) for arm in others]
        for arm, result, p in zip(others, found, adjusted(found), strict=True):
            cells = [arm.name, measure.label, seeds_shown(result.seeds), shown(measure, result, signed=True)]
            rows.append([*cells, shown_p(result.p_value), shown_p(p)])
    if not rows:
        return None
    note = f"Arm minus {against}, in points (% right) or nats per token, on the same items. {PAIRED}"
    head = ["arm", "measure", "seeds", f"difference to {against}", "p", "p (Holm)"]
    return Table(f"Differences to {against}", head, rows, note)

"""Pairs of arms named in a plan: the effect of one choice, with the seed and all else equal."""

from __future__ import annotations

from ....evaluation import shown_p
from ..estimates import PAIRED, adjusted, difference, seeds_shown, share_items, shown
from ..study_data import StudyData
from .table import Table

NOTE = f"First arm minus second, in points (% right) or nats per token, on the same items. {PAIRED}"


def contrast_table(data: StudyData) -> Table | None:
    """Compares the plan's pairs of arms on every measure; None if no pair shares a seed."""
    pairs = [(data.arm(first), data.arm(second)) for first, second in data.study.contrasts]
    rows: list[list[str]] = []
    for measure in data.measures:
        scores = [(f"{a.name} - {b.name}", a.by_seed(measure), b.by_seed(measure)) for a, b in pairs if a and b]
        both = [(name, a, b) for name, a, b in scores if a.keys() & b.keys() and share_items(a, b)]
        found = [(name, difference(a, b, measure)) for name, a, b in both]
        results = [result for _, result in found]
        for (name, result), p in zip(found, adjusted(results), strict=True):
            cells = [name, measure.label, seeds_shown(result.seeds), shown(measure, result, signed=True)]
            rows.append([*cells, shown_p(result.p_value), shown_p(p)])
    return Table("Contrasts", ["arms", "measure", "seeds", "difference", "p", "p (Holm)"], rows, NOTE) if rows else None

"""Pairs of arms that a plan names: what one choice is worth, all else and the seed equal."""

from __future__ import annotations

from ...evaluation import Estimate, common_items, hierarchical_bootstrap, holm
from .comparison import Table
from .study_data import ArmResult, StudyData
from .study_run import Measure
from .study_tables import compare, shown

NOTE = (
    "First arm minus second, over the seeds that both have, in points (% right) or nats per token, on the same items. "
    "Runs of one seed saw the same data in the same order and are resampled together: 95 % bootstrap intervals over "
    "seeds and items, with one seed over items only. p: of the bootstrap, or McNemar's where there is one seed; Holm's "
    "adjustment over the pairs, for each measure."
)


def contrast_table(data: StudyData) -> Table | None:
    """The plan's contrasts on every measure; None where no pair has a seed in common."""
    pairs = [(data.arm(first), data.arm(second)) for first, second in data.study.contrasts]
    rows: list[list[str]] = []
    for measure in data.measures:
        found = [(a, b, *met) for a, b in pairs if a and b and (met := _on_common_seeds(a, b, measure)) is not None]
        adjusted = holm([result.p_value for _, _, _, result in found]) if found else []
        for (first, second, seeds, result), p in zip(found, adjusted, strict=True):
            cells = [f"{first.name} - {second.name}", measure.label, str(seeds), shown(measure, result, signed=True)]
            rows.append([*cells, f"{result.p_value:.2g}", f"{p:.2g}"])
    return Table("Contrasts", ["arms", "measure", "seeds", "difference", "p", "p (Holm)"], rows, NOTE) if rows else None


def _on_common_seeds(first: ArmResult, second: ArmResult, measure: Measure) -> tuple[int, Estimate] | None:
    """Number of seeds, and the difference over them."""
    seeds = [
        seed
        for seed, run in first.runs.items()
        if measure in run.scores and seed in second.runs and measure in second.runs[seed].scores
    ]
    if not seeds:
        return None
    ours, theirs = ([arm.runs[seed].scores[measure] for seed in seeds] for arm in (first, second))
    if len(seeds) == 1:
        return 1, compare(ours, theirs, measure)
    after, before = common_items(ours, theirs)
    return len(seeds), hierarchical_bootstrap(after - before)

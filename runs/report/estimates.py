"""Estimates of a study: scores and differences over seeds and items, and their formatting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan

from ...evaluation import (
    NOT_NEGATIVE,
    Estimate,
    common_items,
    crossed_t,
    holm,
    mcnemar,
    paired_difference,
    wilson_interval,
)
from ..study.spec import UNTOUCHED
from .study_data import ArmResult
from .study_run import Measure

BySeed = Mapping[int, dict[str, float]]
"""Seed -> item -> score."""

METHOD = (
    "Student's t with separate variances between seeds and between items (crossed); with one seed they are over items "
    "only and say nothing about other seeds"
)
PAIRED = (
    "Runs with the same seed saw the same data in the same order, so differences are taken seed by seed over shared "
    f"seeds. In brackets 95 % intervals over seeds and items, {METHOD}. p: from the same t; for right answers of "
    "single runs McNemar's, with Tango's interval. Holm's adjustment for each measure, over the rows with several "
    "seeds and over those with one."
)


def score(runs: Sequence[dict[str, float]], measure: Measure) -> Estimate:
    """Returns the mean of an arm's runs over seeds and items; an accuracy of a single run has Wilson's limits.

    A loss is never below 0, and neither is the lower limit of one.
    """
    (matrix,) = common_items(runs)
    if measure.kind != "accuracy":
        found = crossed_t(matrix)
        return found._replace(low=max(found.low, NOT_NEGATIVE[0]))
    if len(matrix) > 1:
        return crossed_t(matrix, bounds=(0.0, 1.0))
    return Estimate(*wilson_interval(int(matrix.sum()), matrix.size), nan, 1)


def seeds_shown(seeds: int) -> str:
    """Returns the number of seeds behind an interval."""
    return "1 (items only)" if seeds == 1 else str(seeds)


def shown(measure: Measure, found: Estimate, signed: bool) -> str:
    """Formats an estimate in the measure's unit, with its interval."""
    return interval([part * measure.scale for part in found[:3]], signed)


def interval(found: Sequence[float], signed: bool = False) -> str:
    """Formats value, low and high as ``+0.4 [0.1, 0.7]``; only the value if its spread is unknown."""
    value, low, high = found[:3]
    shown = f"{value:{'+' if signed else ''}.3g}"
    return f"{shown} [{low:.3g}, {high:.3g}]" if isfinite(low) and isfinite(high) else shown


def compare(first: ArmResult, second: ArmResult, measure: Measure) -> Estimate:
    """Returns the first arm minus the second one, seed by seed if they share seeds."""
    ours, theirs = first.by_seed(measure), second.by_seed(measure)
    if first.name == UNTOUCHED:
        ours = dict.fromkeys(theirs, next(iter(ours.values())))
    if second.name == UNTOUCHED:
        theirs = dict.fromkeys(ours, next(iter(theirs.values())))
    return difference(ours, theirs, measure)


def difference(ours: BySeed, theirs: BySeed, measure: Measure) -> Estimate:
    """Returns the mean difference of runs on the same items: within shared seeds, otherwise of independent runs.

    For right and wrong answers of a single pair of runs, the limits are Tango's and the p-value is McNemar's.
    """
    bounds = (-1.0, 1.0) if measure.kind == "accuracy" else None
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        after, before = common_items(list(ours.values()), list(theirs.values()))
        return crossed_t(after, before, bounds)
    after, before = common_items([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    if bounds is None or len(seeds) > 1:
        return crossed_t(after - before, bounds=bounds)
    was, now = ([bool(right) for right in side[0]] for side in (before, after))
    return Estimate(*paired_difference(was, now), mcnemar(was, now).p_value, 1)


def share_items(ours: BySeed, theirs: BySeed) -> bool:
    """Returns whether all runs of both sides share an item: a fit's questions differ from those of a test."""
    runs = [set(scores) for side in (ours, theirs) for scores in side.values()]
    return bool(runs) and bool(set.intersection(*runs))


def adjusted(found: Sequence[Estimate]) -> list[float]:
    """Applies Holm's adjustment separately to results over seeds and to those over items only."""
    p_values = [nan] * len(found)
    for single in (False, True):
        places = [place for place, result in enumerate(found) if (result.seeds == 1) is single]
        for place, p in zip(places, holm([found[place].p_value for place in places]), strict=True):
            p_values[place] = p
    return p_values

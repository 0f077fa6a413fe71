"""Tables of a study's scores: in the paper's layout, and differences with tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan

from ....evaluation import Estimate, common_items, crossed_t, holm, mcnemar, paired_difference, shown_p, wilson_interval
from ...study.spec import UNTOUCHED
from ..study_data import ArmResult, StudyData
from ..study_run import Measure
from .comparison import Table

DASH = "-"

BySeed = Mapping[int, dict[str, float]]
"""Seed -> item -> score."""

METHOD = (
    "Student's t with the variance between seeds and between items apart (crossed); with one seed they are over items "
    "only and say nothing of other seeds"
)
PAIRED = (
    "Runs of one seed saw the same data in the same order: the difference is taken seed by seed over the seeds that "
    f"both have. In brackets 95 % intervals over seeds and items, {METHOD}. p: of the same t; of right answers of "
    "single runs McNemar's, with Tango's interval. Holm's adjustment for each measure, over the rows with several "
    "seeds and over those with one."
)


def scores_table(data: StudyData) -> Table:
    """One row an arm, one column a measure, with 95 % intervals over seeds and items."""
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


def score(runs: Sequence[dict[str, float]], measure: Measure) -> Estimate:
    """The mean of an arm's runs over seeds and items; a share of right answers of a single run has Wilson's limits."""
    (matrix,) = common_items(runs)
    if measure.kind != "accuracy":
        return crossed_t(matrix)
    if len(matrix) > 1:
        return crossed_t(matrix, bounds=(0.0, 1.0))
    return Estimate(*wilson_interval(int(matrix.sum()), matrix.size), nan, 1)


def seeds_shown(seeds: int) -> str:
    """How many seeds an interval rests on."""
    return "1 (items only)" if seeds == 1 else str(seeds)


def shown(measure: Measure, found: Estimate, signed: bool) -> str:
    """An estimate in the measure's unit, with its interval."""
    return interval([part * measure.scale for part in found[:3]], signed)


def interval(found: Sequence[float], signed: bool = False) -> str:
    """``+0.4 [0.1, 0.7]`` of value, low and high; the value alone where nothing is known of its spread."""
    value, low, high = found[:3]
    shown = f"{value:{'+' if signed else ''}.3g}"
    return f"{shown} [{low:.3g}, {high:.3g}]" if isfinite(low) and isfinite(high) else shown


def difference_table(data: StudyData, against: str) -> Table | None:
    """Every arm against one, on the same items, with Holm's adjustment for each measure; None without that arm.

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
        others = [arm for arm in data.arms if arm is not reference and arm.scores.get(measure)]
        found = [compare(arm, reference, measure) for arm in others]
        for arm, result, p in zip(others, found, adjusted(found), strict=True):
            cells = [arm.name, measure.label, seeds_shown(result.seeds), shown(measure, result, signed=True)]
            rows.append([*cells, shown_p(result.p_value), shown_p(p)])
    if not rows:
        return None
    note = f"Arm minus {against}, in points (% right) or nats per token, on the same items. {PAIRED}"
    head = ["arm", "measure", "seeds", f"difference to {against}", "p", "p (Holm)"]
    return Table(f"Differences to {against}", head, rows, note)


def compare(first: ArmResult, second: ArmResult, measure: Measure) -> Estimate:
    """The first arm minus the second one, seed by seed where they have seeds in common."""
    ours, theirs = first.by_seed(measure), second.by_seed(measure)
    if first.name == UNTOUCHED:
        ours = dict.fromkeys(theirs, next(iter(ours.values())))
    if second.name == UNTOUCHED:
        theirs = dict.fromkeys(ours, next(iter(theirs.values())))
    return difference(ours, theirs, measure)


def difference(ours: BySeed, theirs: BySeed, measure: Measure) -> Estimate:
    """Mean difference of runs on the same items: within the seeds that both have, else of independent runs.

    Of right and wrong answers of a single pair of runs the limits are Tango's and the p-value McNemar's.
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


def adjusted(found: Sequence[Estimate]) -> list[float]:
    """Holm's adjustment among the results that speak of seeds, and among those over items only: two questions."""
    p_values = [nan] * len(found)
    for single in (False, True):
        places = [place for place, result in enumerate(found) if (result.seeds == 1) is single]
        for place, p in zip(places, holm([found[place].p_value for place in places]), strict=True):
            p_values[place] = p
    return p_values


def as_markdown(tables: Sequence[Table]) -> str:
    """The tables for a document."""
    parts = []
    for table in tables:
        lines = [f"**{table.title}**", "", _line(table.head), _line(["---"] * len(table.head))]
        lines += [_line(row) for row in table.rows]
        parts.append("\n".join([*lines, "", table.note]).strip())
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

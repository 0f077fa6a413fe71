"""Tables of a study's scores: in the paper's layout, and differences with tests."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from ...evaluation import Estimate, common_items, hierarchical_bootstrap, holm, mcnemar
from .comparison import Table
from .study_data import ArmResult, StudyData
from .study_run import Measure

DASH = "-"


def scores_table(data: StudyData) -> Table:
    """One row an arm, one column a measure, with 95 % intervals over seeds and items."""
    measures = data.measures
    rows = []
    for arm in data.arms:
        cells = [arm.name, str(len(arm.runs))]
        rows.append(cells + [_score(arm, measure) for measure in measures])
    note = (
        "T2T: written question, written answer; S2T: spoken question, written answer; % right, losses in nats per "
        "token (mean over texts). In brackets 95 % bootstrap intervals over seeds and items; with few seeds the part "
        "between seeds is somewhat too narrow."
    )
    return Table("Scores by arm", ["arm", "seeds", *(measure.label for measure in measures)], rows, note)


def _score(arm: ArmResult, measure: Measure) -> str:
    runs = arm.scores.get(measure)
    if not runs:
        return DASH
    (matrix,) = common_items(runs)
    return shown(measure, hierarchical_bootstrap(matrix), signed=False)


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
        found = [compare(arm.scores[measure], reference.scores[measure], measure) for arm in others]
        adjusted = holm([result.p_value for result in found])
        for arm, result, p in zip(others, found, adjusted, strict=True):
            cells = [arm.name, measure.label, shown(measure, result, signed=True)]
            rows.append([*cells, f"{result.p_value:.2g}", f"{p:.2g}"])
    if not rows:
        return None
    note = (
        f"Arm minus {against}, in points (% right) or nats per token, on the same items; 95 % bootstrap intervals over "
        "seeds and items. p: of the bootstrap, or McNemar's where both sides have one run; Holm's adjustment over the "
        "arms, for each measure."
    )
    head = ["arm", "measure", f"difference to {against}", "p", "p (Holm)"]
    return Table(f"Differences to {against}", head, rows, note)


def compare(runs: Sequence[dict[str, float]], reference: Sequence[dict[str, float]], measure: Measure) -> Estimate:
    """The difference of two arms; with one run a side the p-value of right and wrong answers is McNemar's."""
    ours, theirs = common_items(runs, reference)
    found = hierarchical_bootstrap(ours, theirs)
    if measure.kind == "accuracy" and len(ours) == len(theirs) == 1:
        return found._replace(p_value=mcnemar([bool(x) for x in theirs[0]], [bool(x) for x in ours[0]]).p_value)
    return found


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

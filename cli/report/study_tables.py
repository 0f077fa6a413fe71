"""Tables of a study: scores in the paper's layout, differences with tests, shift of importance."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ...evaluation import Estimate, common_items, hierarchical_bootstrap, holm, mcnemar
from ..study.spec import UNTOUCHED
from .comparison import Table
from .study_data import ArmResult, Measure, StudyData

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
    return _shown(measure, hierarchical_bootstrap(matrix), signed=False)


def _shown(measure: Measure, found: Estimate, signed: bool) -> str:
    scale = 100.0 if measure.kind == "accuracy" else 1.0
    value, low, high = (part * scale for part in found[:3])
    sign = "+" if signed else ""
    return f"{value:{sign}.3g} [{low:.3g}, {high:.3g}]"


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
            cells = [arm.name, measure.label, _shown(measure, result, signed=True)]
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


def importance_table(data: StudyData) -> Table | None:
    """The shift of the layer shares by probe, beside its null, the total and the loss; means over seeds."""
    rows = []
    for arm in data.arms:
        for probe, estimator in dict.fromkeys((line["probe"], line["estimator"]) for line in arm.importance):
            lines = [x for x in arm.importance if (x["probe"], x["estimator"]) == (probe, estimator) and x.get("shift")]
            if lines:
                rows.append([arm.name, probe, estimator, *_shift_cells([line["shift"] for line in lines])])
    if not rows:
        return None
    head = ["arm", "probe", "estimator", "JS distance", "null (95 %)", "runs beyond it", "total, ratio", "loss, change"]
    note = "Last measurement against the first. Null: what random halves of the probe's examples differ by."
    return Table("Shift of importance", head, rows, note)


def _shift_cells(shifts: Sequence[dict[str, Any]]) -> list[str]:
    distances = [shift["metrics"]["js"] for shift in shifts]
    nulls = [distance["null_p95"] for distance in distances if distance["null_p95"] is not None]
    beyond = sum(d["null_p95"] is not None and d["low"] is not None and d["low"] > d["null_p95"] for d in distances)
    ratios = [shift["total_after"] / shift["total_before"] for shift in shifts if shift["total_before"]]
    values = [distance["value"] for distance in distances]
    return [
        f"{fmean(values):.3g} ({min(values):.2g} to {max(values):.2g})",
        f"{fmean(nulls):.2g}" if nulls else DASH,
        f"{beyond} of {len(distances)}",
        f"{fmean(ratios):.3g}" if ratios else DASH,
        f"{fmean(shift['loss_after'] - shift['loss_before'] for shift in shifts):+.3g}",
    ]


def grid_table(data: StudyData) -> Table | None:
    """What every point of a grid reached, and which was taken."""
    rows = [
        [
            arm,
            ", ".join(f"{key} = {setting}" for key, setting in point.items()),
            f"{value:.4g}",
            "" if place else "taken",
        ]
        for arm, scored in data.grids.items()
        for place, (point, value) in enumerate(scored)
    ]
    if not rows or data.study.selection is None:
        return None
    head = ["arm", "point", data.study.selection.metric, ""]
    return Table("Points of the grids", head, rows, "Of each arm's first seed, on validation.")


def study_tables(data: StudyData) -> list[Table]:
    """All tables that the study's runs give."""
    found = [
        scores_table(data),
        difference_table(data, data.study.reference),
        difference_table(data, UNTOUCHED),
        importance_table(data),
        grid_table(data),
    ]
    return [table for table in found if table is not None]


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

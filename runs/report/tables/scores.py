"""Scores of the runs, start and end, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...evaluations import Evaluation
from ...run import Run
from ..numbers import SPLITS, number, percent
from .table import DASH, Table

FIGURES = (
    ("text_accuracy", "text accuracy", percent),
    ("text_accuracy_kept", "text accuracy kept", percent),
    ("speech_accuracy", "speech accuracy", percent),
    ("text_answer_loss", "text loss", number),
    ("text_loss_change", "text loss change", number),
    ("speech_answer_loss", "speech loss", number),
    ("hearing_gap", "hearing gap", number),
)


def score_tables(runs: Sequence[Run]) -> list[Table]:
    """Builds one table per split: one row per run, start and end, with intervals."""
    tables = []
    for stage, title in SPLITS.items():
        found = [(run, run.evaluations[stage]) for run in runs if stage in run.evaluations]
        shown = [f for f in FIGURES if any(e.has(f[0]) for _, e in found)]
        if not shown:
            continue
        rows = []
        for run, evaluation in found:
            ends = [evaluation.first, evaluation.last] if len(evaluation.rows) > 1 else [evaluation.last]
            rows += [_score_row(run.name, evaluation, row, shown) for row in ends]
        head = ["run", "step", "items", *(label for _, label, _ in shown)]
        note = "Losses and hearing gap in nats per answer token; in brackets 95 % intervals."
        tables.append(Table(f"Scores on the {title} questions", head, rows, note))
    return tables


def _score_row(name: str, evaluation: Evaluation, row: dict[str, Any], shown: Sequence[Any]) -> list[str]:
    cells = [name, str(row["step"]), str(row.get("items", ""))]
    for key, _, write in shown:
        found = evaluation.value(row, key)
        cells.append(write(*found).replace(" [", "\n[") if found else DASH)
    return cells

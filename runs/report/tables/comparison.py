"""Tables: figures of several runs side by side, items that flipped, and how configurations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....evaluation import MODALITIES, Prediction, holm, mcnemar, paired_difference
from ...evaluations import Evaluation
from ...run import Run
from ..verdict import SPLITS, number, percent, points

MAX_FLIPS = 300
"""Flipped items listed of a run: a page of thousands helps nobody."""

FIGURES = (
    ("text_accuracy", "text accuracy", percent),
    ("text_accuracy_kept", "text accuracy kept", percent),
    ("speech_accuracy", "speech accuracy", percent),
    ("text_answer_loss", "text loss", number),
    ("text_loss_change", "text loss change", number),
    ("speech_answer_loss", "speech loss", number),
    ("hearing_gap", "hearing gap", number),
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Caption.
        head: Column titles.
        rows: Cells.
        note: Below the table.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Flip:
    """An item whose correctness changed between the first and the last evaluation.

    Attributes:
        kind: ``lost`` or ``gained``.
        before: The first record.
        after: The last record.
    """

    kind: str
    before: Prediction
    after: Prediction


def score_tables(runs: Sequence[Run]) -> list[Table]:
    """A table a split: one row a run, start and end, with intervals."""
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
        cells.append(write(*found).replace(" [", "\n[") if found else "-")
    return cells


def paired_table(runs: Sequence[Run]) -> Table | None:
    """Each run's last answers against the first run's, on the items that both have; None for a single run."""
    rows, p_values = [], []
    for stage, title in SPLITS.items():
        scored = [(run.name, _correct(run.evaluations[stage])) for run in runs if stage in run.evaluations]
        for name, theirs in scored[1:]:
            for modality in MODALITIES:
                reference = scored[0][1]
                shared = sorted(key for key in reference.keys() & theirs.keys() if key[1] == modality)
                if not shared:
                    continue
                before, after = [reference[key] for key in shared], [theirs[key] for key in shared]
                test = mcnemar(before, after)
                p_values.append(test.p_value)
                cells = [title, modality, f"{name} - {scored[0][0]}", points(paired_difference(before, after))]
                rows.append([*cells, str(test.gained), str(test.lost), str(len(shared)), f"{test.p_value:.2g}"])
    if not rows:
        return None
    rows = [[*row, f"{adjusted:.2g}"] for row, adjusted in zip(rows, holm(p_values), strict=True)]
    head = ["questions", "modality", "runs", "accuracy", "gained", "lost", "items", "p", "p (Holm)"]
    note = (
        f"Gained, lost: right in the run but not in {runs[0].name}, and the other way round. McNemar tests; "
        "in brackets Tango's 95 % score intervals."
    )
    return Table("Differences on the same questions", head, rows, note)


def _correct(evaluation: Evaluation) -> dict[tuple[str, str], bool]:
    records = evaluation.predictions(evaluation.last["step"])
    return {(r.id, r.modality): r.correct for r in records if r.correct is not None}


def flips(evaluation: Evaluation) -> list[Flip]:
    """Items that were right and are wrong, or the other way round, text first; lost before gained."""
    before = {(r.id, r.modality): r for r in evaluation.predictions(evaluation.first["step"])}
    found = [
        Flip("lost" if earlier.correct else "gained", earlier, record)
        for record in evaluation.predictions(evaluation.last["step"])
        if (earlier := before.get((record.id, record.modality))) is not None
        and None not in (earlier.correct, record.correct)
        and earlier.correct != record.correct
    ]
    return sorted(found, key=lambda f: (f.after.modality != "text", f.kind != "lost", f.after.id))


@dataclass(frozen=True)
class FlippedQuestion:
    """A question that flipped in at least one modality, with what was answered in both.

    Attributes:
        id: Item.
        question: As text.
        answers: Accepted spellings.
        kinds: Modality -> ``lost``, ``gained``, or ``same``; only modalities that were scored twice.
        before: Modality -> the first record.
        after: Modality -> the last record.
        clip: ``data:`` URI of the spoken question, empty if it is not shown.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    kinds: dict[str, str]
    before: dict[str, Prediction]
    after: dict[str, Prediction]
    clip: str = ""


def flipped_questions(evaluation: Evaluation) -> list[FlippedQuestion]:
    """The questions behind :func:`flips`, in its order."""
    flipped = {(flip.after.id, flip.after.modality): flip.kind for flip in flips(evaluation)}
    before = {(r.id, r.modality): r for r in evaluation.predictions(evaluation.first["step"])}
    after = {(r.id, r.modality): r for r in evaluation.predictions(evaluation.last["step"])}
    questions = []
    for identity in dict.fromkeys(item for item, _ in flipped):
        scored = [m for m in MODALITIES if (identity, m) in before and (identity, m) in after]
        record = after[identity, scored[0]]
        questions.append(
            FlippedQuestion(
                id=identity,
                question=record.question,
                answers=record.answers,
                kinds={m: flipped.get((identity, m), "same") for m in scored},
                before={m: before[identity, m] for m in scored},
                after={m: after[identity, m] for m in scored},
            )
        )
    return questions


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text; lists stay whole unless they hold mappings."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.") or {name: "{}"}
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(index): item for index, item in enumerate(value)}, f"{name}.")
        else:
            flat[name] = "" if value is None else str(value)
    return flat


def config_difference(runs: Sequence[Run]) -> Table | None:
    """Settings in which the runs differ; None for a single run."""
    configs = [flatten(run.config) for run in runs]
    if len(runs) < 2 or not all(configs):
        return None
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows = [
        [key, *(config.get(key, "-") for config in configs)]
        for key in keys
        if len({config.get(key) for config in configs}) > 1
    ]
    return Table("Settings that differ", ["setting", *(run.name for run in runs)], rows, "" if rows else "None.")

"""Questions that were answered correctly before and wrongly after, or the other way round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...evaluation import MODALITIES, Prediction
from ..evaluations import Evaluation
from ..run import Run
from .clips import Clips
from .numbers import SPLITS

MAX_FLIPS = 300
"""Maximum number of flipped items listed per run: a page of thousands helps nobody."""


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


def flips(evaluation: Evaluation) -> list[Flip]:
    """Lists items that were right and are wrong, or the other way round, text first; lost before gained."""
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
    """A question that flipped in at least one modality, with the answers in both.

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
    """Lists the questions behind :func:`flips`, in its order."""
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


def flipped_parts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns what a page lists for each run and stage that was evaluated twice."""
    clips, parts = Clips(), []
    for run in runs:
        for stage, found in run.evaluations.items():
            if len(found.rows) < 2:
                continue
            questions = flipped_questions(found)
            sounds = clips.of(run, stage, [q.id for q in questions[:MAX_FLIPS]]) if questions else {}
            shown = [replace(q, clip=sounds.get(q.id, "")) for q in questions[:MAX_FLIPS]]
            counts = Counter((m, kind) for q in questions for m, kind in q.kinds.items() if kind != "same")
            part = {"run": run, "split": SPLITS[stage], "evaluation": found, "questions": shown, "counts": counts}
            parts.append({**part, "hidden": len(questions) - len(shown)})
    return parts

"""What learning speech cost in text and how well speech is understood, run by run: a comparison's first words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...evaluation import McNemar, bootstrap_ratio, mcnemar, paired_difference
from ...foundation.run_names import stage_key
from ..evaluations import Evaluation
from ..run import Run
from .finding import Finding
from .numbers import LEVEL, SPLITS, Limits, mcnemar_words, number, percent, points
from .plain_text import judged, scored_texts

EQUAL = 0.1
"""Two runs are equally good at speech if the interval of their difference contains 0 and stays within this."""
WORSE = 0.05
"""A run is no worse at speech if the interval of the difference stays above minus this (non-inferiority margin)."""


@dataclass(frozen=True)
class Text:
    """What happened to plain text.

    Attributes:
        source: Name of the set of passages.
        cost: Change of the loss since the untouched model, nats a token.
        passages: How many.
        against: Loss minus the first run's on the same passages, nats a token; None of the first run.
    """

    source: str
    cost: Limits
    passages: int
    against: Limits | None = None


@dataclass(frozen=True)
class Speech:
    """How spoken questions were answered.

    Attributes:
        stage: ``test`` or ``val``.
        right: Share of them.
        questions: How many.
        start: The same of the untouched model, where it was asked.
        against: Share minus the first run's on the same questions, and the paired test; None of the first run.
    """

    stage: str
    right: Limits
    questions: int
    start: Limits | None = None
    against: tuple[Limits, McNemar] | None = None


@dataclass(frozen=True)
class Outcome:
    """The two most important figures of a run; None for what was not measured.

    Attributes:
        name: Of the run.
        text: On plain text.
        speech: On spoken questions.
    """

    name: str
    text: Text | None
    speech: Speech | None


def outcomes(runs: Sequence[Run]) -> list[Outcome]:
    """Returns the outcome of each run; comparisons are with the first one, on what both were asked."""
    texts = [scored_texts(run) for run in runs]
    common = [name for name in texts[0] if all(name in found for found in texts)]
    stage = next((s for s in ("test", "val") if all(_heard(run, s) for run in runs)), None)
    found = []
    for index, run in enumerate(runs):
        text = _text(common[0], texts[index][common[0]], texts[0][common[0]], first=not index) if common else None
        speech = _speech(run.evaluations[stage], runs[0].evaluations[stage], first=not index) if stage else None
        found.append(Outcome(run.name, text, speech))
    return found


def text_finding(outcome: Outcome) -> Finding | None:
    """Says whether a run lost text, and how much; None if no plain text was scored at both ends."""
    text = outcome.text
    if text is None:
        return None
    what = f"on {text.passages} passages of {text.source}"
    topic, mark = judged(text.cost)
    if mark == "same":
        return Finding(topic, mark, f"exactly: {what} the loss is the same to the last digit.")
    words = f"{number(*text.cost, signed=True)} nats a token against the untouched LLM, {what}"
    if text.against is not None and text.against != (0.0, 0.0, 0.0):
        words += f"; {number(*text.against, signed=True)} against the first run"
    return Finding(topic, mark, words + (": no loss is established." if mark == "open" else "."))


def speech_finding(outcome: Outcome, first: Outcome) -> Finding | None:
    """Compares how well a run understands speech with the first run; None for that one or without shared questions."""
    speech, other = outcome.speech, first.speech
    if speech is None or other is None or speech.against is None:
        return None
    difference, test = speech.against
    _, low, high = difference
    if test.p_value < LEVEL and (low > 0 or high < 0):
        topic, mark = ("Better at speech", "good") if low > 0 else ("Worse at speech", "bad")
    elif -EQUAL <= low <= 0 <= high <= EQUAL:
        topic, mark = "Equally good at speech", "good"
    elif low >= -WORSE:
        topic, mark = "No worse at speech", "good"
    else:
        topic, mark = "Equally good at speech?", "open"
    return Finding(
        topic,
        mark,
        f"{percent(*speech.right)} against {percent(*other.right)} of {speech.questions} spoken {SPLITS[speech.stage]} "
        f"questions answered correctly; difference {points(difference)}, {mcnemar_words(difference, test)}.",
    )


def outcome_lines(found: Sequence[Outcome]) -> list[str]:
    """Puts the outcome into words, one line per finding, as the console shows the page's first screen."""
    lines = []
    for outcome in found:
        if (text := text_finding(outcome)) is not None:
            lines.append(f"{outcome.name}: {_sentence(text)}")
    for outcome in found[1:]:
        if (speech := speech_finding(outcome, found[0])) is not None:
            lines.append(f"{outcome.name} against {found[0].name}: {_sentence(speech)}")
    return lines


def _sentence(finding: Finding) -> str:
    joint = " " if finding.topic.endswith("?") else ", "
    return f"{finding.topic[0].lower()}{finding.topic[1:]}{joint}{finding.text}"


def _text(name: str, evaluation: Evaluation, reference: Evaluation, first: bool) -> Text:
    cost = evaluation.value(evaluation.last, stage_key(name, "loss_change"))
    assert cost is not None  # scored_texts has asked
    against = None if first else _loss_difference(evaluation, reference)
    return Text(name, cost, int(evaluation.last["items"]), against)


def _loss_difference(evaluation: Evaluation, reference: Evaluation) -> Limits | None:
    """Returns the difference of two losses per token, with a bootstrap interval over the passages that both scored."""
    theirs = {record.id: record for record in reference.predictions(reference.last["step"])}
    pairs = [(r, theirs[r.id]) for r in evaluation.predictions(evaluation.last["step"]) if r.id in theirs]
    scored = [((a.loss - b.loss) * a.tokens, a.tokens) for a, b in pairs if a.loss is not None and b.loss is not None]
    if not scored:
        return None
    estimate, low, high = bootstrap_ratio([change for change, _ in scored], [tokens for _, tokens in scored])
    return estimate, low, high


def _heard(run: Run, stage: str) -> bool:
    return stage in run.evaluations and run.evaluations[stage].has("speech_accuracy")


def _speech(evaluation: Evaluation, reference: Evaluation, first: bool) -> Speech:
    right = evaluation.value(evaluation.last, "speech_accuracy")
    assert right is not None  # _heard has asked
    untouched = evaluation.first if evaluation.first["step"] == 0 and len(evaluation.rows) > 1 else None
    start = evaluation.value(untouched, "speech_accuracy") if untouched else None
    against = None if first else _answers_against(evaluation, reference)
    return Speech(evaluation.stage, right, int(evaluation.last["items"]), start, against)


def _answers_against(evaluation: Evaluation, reference: Evaluation) -> tuple[Limits, McNemar] | None:
    theirs, ours = (
        {
            r.id: bool(r.correct)
            for r in e.predictions(e.last["step"])
            if r.modality == "speech" and r.correct is not None
        }
        for e in (reference, evaluation)
    )
    shared = sorted(theirs.keys() & ours.keys())
    if not shared:
        return None
    before, after = [theirs[key] for key in shared], [ours[key] for key in shared]
    value, low, high = paired_difference(before, after)
    return ((value, low, high), mcnemar(before, after)) if math.isfinite(value) else None

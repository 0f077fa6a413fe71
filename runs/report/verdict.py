"""The result of a run in words, each figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from ...evaluation import McNemar, mcnemar
from ..evaluations import Evaluation
from ..run import Run
from .finding import Finding
from .importance_verdict import importance_findings
from .numbers import LEVEL, SPLITS, Limits, mcnemar_words, number, percent, points
from .plain_text import plain_text_finding


def verdict(run: Run) -> list[Finding]:
    """Says what the run's evaluations and importance measurements say; empty if there are none."""
    leading = plain_text_finding(run)
    findings = [leading] if leading else []
    for evaluation in _splits(run):
        findings += [f for f in (_text(evaluation), _speech(evaluation), _hearing(evaluation)) if f]
    return findings + importance_findings(run)


_TEXT = {
    "bad": "it lost text accuracy",
    "open": "no change in its text accuracy is established",
    "same": "its losses on text are exactly the same",
    "good": "its text accuracy rose",
}
_HEARING = {"good": "It listens", "open": "It is not shown to listen", "bad": "The clips mislead it"}


def headline(findings: Sequence[Finding], text_told: bool = False) -> str:
    """Returns the verdict in one sentence: what happened to plain text, or else to text accuracy; then hearing.

    Args:
        findings: Of a run.
        text_told: Whether plain text is already covered above; then only hearing is mentioned, and the result is empty
            without it.
    """
    text = next((_TEXT[f.mark] for f in findings if f.topic.startswith("Text (") and f.mark in _TEXT), None)
    hearing = next((_HEARING[f.mark] for f in findings if f.topic.startswith("Hearing") and f.mark in _HEARING), None)
    if text_told:
        return f"{hearing}." if hearing else ""
    lead = next((f.short for f in findings if f.short), None)
    if lead:
        return f"{lead}; {hearing[0].lower()}{hearing[1:]}." if hearing else f"{lead}."
    if hearing and text:
        return f"{hearing}, and {text}."
    if hearing or text:
        return f"{hearing or text}."[0].upper() + f"{hearing or text}."[1:]
    return "Not yet compared with the untouched model."


def _splits(run: Run) -> list[Evaluation]:
    """Lists the test questions first, since those are the ones to report."""
    return [run.evaluations[stage] for stage in ("test", "val") if stage in run.evaluations]


def _text(evaluation: Evaluation) -> Finding | None:
    topic = f"Text ({SPLITS[evaluation.stage]})"
    after = evaluation.value(evaluation.last, "text_accuracy")
    loss = evaluation.value(evaluation.last, "text_loss_change")
    lost = f"; the loss on text answers changed by {number(*loss, signed=True)} nats per token" if loss else ""
    if after is None:
        return Finding(topic, _change_mark(loss, worse_is_positive=True), lost[2:].capitalize() + ".") if loss else None
    before = evaluation.value(evaluation.first, "text_accuracy")
    if before is None or evaluation.first is evaluation.last:
        return Finding(topic, "plain", f"answers {percent(*after)} of {evaluation.last['items']} written questions.")
    moved = f"({100 * before[0]:.3g} % → {100 * after[0]:.3g} % of {evaluation.last['items']} questions"
    change, kept = (evaluation.value(evaluation.last, f"text_accuracy_{name}") for name in ("change", "kept"))
    test = _flipped(evaluation)
    head = f"kept {percent(*kept)} of its text accuracy" if kept else "text accuracy"
    if change is None or test is None:
        return Finding(topic, "open", f"{head} {moved}; not tested: the records of both steps are needed){lost}.")
    moved += f"; {test.lost} lost, {test.gained} gained, {points(change)}, {mcnemar_words(change, test)})"
    return Finding(topic, _text_mark(change, test, loss), f"{head} {moved}{lost}.")


def _flipped(evaluation: Evaluation) -> McNemar | None:
    """Tests the questions lost and gained since the first step; None if the records share no question."""
    pairs = evaluation.pairs(evaluation.last, "text")
    scored = [(b.correct, a.correct) for b, a in pairs if b.correct is not None and a.correct is not None]
    return mcnemar([b for b, _ in scored], [a for _, a in scored]) if scored else None


def _text_mark(change: Limits, test: McNemar, loss: Limits | None) -> str:
    """Returns ``good`` or ``bad`` if interval and test agree, otherwise ``open``.

    ``same`` only if no answer flipped and the loss is unchanged on every item: then it is the same model.
    """
    if not test.lost + test.gained and loss == (0.0, 0.0, 0.0):
        return "same"
    return _change_mark(change, worse_is_positive=False) if test.p_value < LEVEL else "open"


def _speech(evaluation: Evaluation) -> Finding | None:
    topic = f"Speech ({SPLITS[evaluation.stage]})"
    speech = evaluation.value(evaluation.last, "speech_accuracy")
    text = evaluation.value(evaluation.last, "text_accuracy")
    if speech is None:
        return None
    share = f", {100 * speech[0] / text[0]:.0f} % of what it answers in writing" if text and text[0] else ""
    start = evaluation.value(evaluation.first, "speech_accuracy")
    before = f" (step {evaluation.first['step']}: {100 * start[0]:.3g} %)" if start and len(evaluation.rows) > 1 else ""
    return Finding(topic, "plain", f"answers {percent(*speech)} of the same questions when spoken{share}{before}.")


def _hearing(evaluation: Evaluation) -> Finding | None:
    gap = evaluation.value(evaluation.last, "hearing_gap")
    if gap is None:
        return None
    topic = f"Hearing ({SPLITS[evaluation.stage]})"
    shown = f"hearing gap {number(*gap)} nats per token"
    if evaluation.last["step"] == 0:
        return Finding(topic, "plain", f"measured only before training ({shown}).")
    if gap[1] > 0:
        return Finding(topic, "good", f"it listens: answers are harder with another question's clip ({shown}).")
    if gap[2] < 0:
        return Finding(topic, "bad", f"the right clip makes answers harder than another question's ({shown}).")
    return Finding(topic, "open", f"no evidence that it listens: {shown} includes 0.")


def _change_mark(change: Limits | None, worse_is_positive: bool) -> str:
    if change is None:
        return "plain"
    _, low, high = change
    if low == high == 0:
        return "same"
    if worse_is_positive:
        low, high = -high, -low
    return "bad" if high < 0 else "good" if low > 0 else "open"

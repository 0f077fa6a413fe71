"""Was text lost, or did the model only fit the form of the answers? What a run's plain text shows, as a finding.

Training on answers lowers their loss, and importance falls with the loss whatever becomes of the text: on questions,
the two cannot be told apart. Plain text has no form to fit: there, a higher loss means lost text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...foundation.run_names import stage_key
from ..evaluations import Evaluation
from ..run import Run
from .finding import Finding
from .movements import Movement, movements
from .numbers import Limits, number

LOST, KEPT, OPEN, FORM, MOVED = "Text lost", "Text kept", "Text kept?", "Fit to the form", "Text moved"


@dataclass(frozen=True)
class Change:
    """The change of the loss on plain text.

    Attributes:
        limits: Nats a token, with 95 % limits.
        where: What it was measured on.
    """

    limits: Limits
    where: str

    @property
    def words(self) -> str:
        """The figure with its unit and place."""
        return f"{number(*self.limits, signed=True)} nats a token on {self.where}"


def scored_texts(run: Run) -> dict[str, Evaluation]:
    """Finds the sets of plain text that a fit scored at both its start and its end."""
    found = {}
    for name in run.sets("val"):
        evaluation = run.evaluation("val", name)
        wanted = ("perplexity", "loss_change")
        if evaluation.rows and all(evaluation.has(stage_key(name, figure)) for figure in wanted):
            found[name] = evaluation
    return found


def judged(change: Limits) -> tuple[str, str]:
    """Returns topic and mark of a change of the loss on plain text: lost or kept if its interval decides."""
    if change == (0.0, 0.0, 0.0):
        return KEPT, "same"
    _, low, high = change
    return (LOST, "bad") if low > 0 else (KEPT, "good") if high < 0 else (OPEN, "open")


def plain_text_finding(run: Run) -> Finding | None:
    """Says whether text was lost or only the form of the answers was fitted; None without plain text at both ends.

    The loss is that of a scored set (``PlainTextLoss``), otherwise of a probe; importance is that of the probes.
    """
    if (broken := _without_number(run)) is not None:
        why = f"the loss on {broken} is no longer a number."
        return Finding(LOST, "bad", why, "Text lost: its loss on plain text is no longer a number")
    probes = list(movements(run))
    change = _change(run, probes)
    if change is None:
        return None
    topic, mark = judged(change.limits)
    text = _moved([m for m in probes if m.plain])
    if mark != "open":
        says = {"same": "exactly: the loss is the same, ", "bad": "", "good": "it is even predicted better: "}[mark]
        return Finding(topic, mark, f"{says}{change.words}{text.clause}.", _short(topic, change))
    if text.shifted:
        why = f"no change in the loss is established, {change.words}{text.clause}."
        return Finding(
            MOVED, "open", why, _short("The importance of text moved; no loss of text is established", change)
        )
    form = next((m for m in probes if not m.plain and _fitted(m)), None)
    if form is None or text.shifted is None or form.loss_change is None or form.test is None:
        why = f"no loss is established: {change.words}{text.clause}."
        return Finding(OPEN, "open", why, _short("No loss of text is established", change))
    answers = f"{number(*form.loss_change, signed=True)} nats a token and importance moved ({form.test})"
    why = f"of the answers, no text lost: on questions ({form.probe}) {answers}; {change.words}{text.clause}."
    return Finding(FORM, "good", why, _short("Fit to the form of the answers, no text lost", change))


@dataclass(frozen=True)
class _Moved:
    shifted: bool | None
    clause: str


def _moved(plain: Sequence[Movement]) -> _Moved:
    """Returns whether importance moved on plain text, by the first such probe; None if none was tested."""
    tested = next((m for m in plain if m.test is not None), None)
    if tested is None or tested.test is None:
        return _Moved(None, "")
    moved = "moved" if tested.test.shifted else "did not demonstrably move"
    return _Moved(tested.test.shifted, f"; importance on plain text ({tested.probe}) {moved} ({tested.test})")


def _fitted(questions: Movement) -> bool:
    """Returns whether the answers are demonstrably predicted better and importance has moved along."""
    change, test = questions.loss_change, questions.test
    return change is not None and change[2] < 0 and test is not None and test.shifted


def _without_number(run: Run) -> str | None:
    """Names the plain text whose loss began as a number and ended as none (such losses are written as null)."""
    for name in run.sets("val"):
        evaluation = run.evaluation("val", name)
        figures = [stage_key(name, figure) for figure in ("perplexity", "loss")]
        known = bool(evaluation.rows) and all(evaluation.value(evaluation.first, figure) for figure in figures)
        if known and not any(evaluation.has(figure) for figure in figures):
            return f"{evaluation.last['items']} passages of plain text ({name})"
    return None


def _change(run: Run, probes: Sequence[Movement]) -> Change | None:
    for name, evaluation in scored_texts(run).items():
        limits = evaluation.value(evaluation.last, stage_key(name, "loss_change"))
        if limits is not None:
            return Change(limits, f"{evaluation.last['items']} passages of plain text ({name})")
    for found in probes:
        if found.plain and found.loss_change is not None:
            where = f"{found.last.get('examples', 'the')} passages of plain text (probe {found.probe})"
            return Change(found.loss_change, where)
    return None


def _short(words: str, change: Change) -> str:
    return f"{words}: {number(*change.limits, signed=True)} nats a token of plain text"

"""The card of a run: a section for a model card, and the same in JSON."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ...foundation.run_names import FORGETTING, MISALIGNMENT
from ..report.numbers import number, percent
from ..run import Run
from .facts import TEXT_LOSS_INCREASE, Fact, facts

_TITLES = {
    TEXT_LOSS_INCREASE: "Plain text: rise of the loss",
    "text_accuracy": "Written questions answered right",
    "speech_accuracy": "The same, spoken",
    "text_accuracy_change": "Written questions: change against the untouched LLM",
    "hearing_gap": "Hearing gap: what another question's clip costs, nats a token",
    FORGETTING: "Forgetting F: KL(untouched \\|\\| model), nats a token",
    MISALIGNMENT: "Misalignment M: KL(text \\|\\| speech), nats a token",
}
"""What stands in the table, in this order; accuracies of further sets and shifts follow."""


class Card:
    """What a run kept and learned.

    Args:
        run: Opened.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.facts = facts(run)

    def as_dict(self) -> dict[str, Any]:
        """Gives all figures as JSON has them."""
        figures = {name: fact.as_dict() for name, fact in self.facts.items()}
        return {"run": self.run.name, "step": self.run.last_step, "textkeep": version("textkeep"), "figures": figures}

    def markdown(self) -> str:
        """Writes the section, with a table of the figures that a reader of a model card asks for."""
        shown = [self.facts[name] for name in _TITLES if name in self.facts]
        shown += [fact for name, fact in self.facts.items() if name.endswith("/accuracy")]
        shown += [fact for name, fact in self.facts.items() if name.startswith("shift/")]
        rows = [f"| {_title(fact)} | {_figure(fact)} | {fact.where} |" for fact in shown]
        return "\n".join(
            [
                "## Text kept while learning speech",
                "",
                f"Measured with TextKeep {version('textkeep')} at step {self.run.last_step}. In brackets: 95 % "
                "intervals over items; of shifts, 90 % over examples.",
                "",
                "| | | on |",
                "| --- | --- | --- |",
                *rows,
                "",
            ]
        )


def _title(fact: Fact) -> str:
    subject, _, last = fact.name.rpartition("/")
    if fact.name in _TITLES:
        return _TITLES[fact.name]
    return f"Importance moved on {last}" if subject == "shift" else f"{subject}: {last}"


def _figure(fact: Fact) -> str:
    accuracy = fact.name.endswith("accuracy")
    text = percent(*fact.limits) if accuracy else number(*fact.limits, signed=not fact.name.startswith("shift/"))
    return f"{text}, {fact.test}" if fact.test else text

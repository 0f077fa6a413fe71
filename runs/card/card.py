"""The card of a run or a model: a section for a model card, and the same in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ...foundation.run_names import FORGETTING, MISALIGNMENT
from ..report.numbers import number, percent, points
from ..run import Run
from .facts import BENCHMARK, TEXT_LOSS_INCREASE, Fact, facts

_TITLES = {
    TEXT_LOSS_INCREASE: "Plain text: rise of the loss",
    "text_accuracy": "Written questions answered right",
    "speech_accuracy": "The same, spoken",
    "text_accuracy_change": "Written questions: change against the untouched LLM",
    "hearing_gap": "Hearing gap: what another question's clip costs, nats a token",
    FORGETTING: "Forgetting F: KL(untouched \\|\\| model), nats a token",
    MISALIGNMENT: "Misalignment M: KL(text \\|\\| speech), nats a token",
}
"""Rows of the table, in order; accuracies of further sets and shifts follow."""
_OF_SETS = {"accuracy": "accuracy", "accuracy_change": "change against the untouched LLM"}
"""Figures of further sets, ``<set>/accuracy``, and their titles."""


class Card:
    """What a model kept and learned.

    Args:
        about: Its subject, for the JSON: a run and its step, or a model and its base.
        measured: When or against what, in words: ``at step 120``.
        found: The figures by name.
        remarks: Further sentences.
    """

    def __init__(
        self, about: Mapping[str, Any], measured: str, found: Mapping[str, Fact], remarks: tuple[str, ...] = ()
    ) -> None:
        self.about, self.measured, self.facts, self.remarks = about, measured, found, remarks

    @classmethod
    def of_run(cls, run: Run) -> Card:
        """Collects the figures of a run directory.

        Args:
            run: Opened.
        """
        return cls({"run": run.name, "step": run.last_step}, f"at step {run.last_step}", facts(run))

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures, for JSON."""
        figures = {name: fact.as_dict() for name, fact in self.facts.items()}
        return {**self.about, "textkeep": version("textkeep"), "figures": figures}

    def markdown(self) -> str:
        """Writes the section, with a table of the figures that readers of a model card look for."""
        shown = [self.facts[name] for name in _TITLES if name in self.facts]
        shown += [fact for name, fact in self.facts.items() if name.rpartition("/")[2] in _OF_SETS and "/" in name]
        shown += [fact for name, fact in self.facts.items() if name.startswith((BENCHMARK, "shift/"))]
        rows = [f"| {_title(fact)} | {_figure(fact)} | {fact.where} |" for fact in shown]
        return "\n".join(
            [
                "## Text kept while learning speech",
                "",
                f"Measured with TextKeep {version('textkeep')} {self.measured}. In brackets: 95 % "
                "intervals over items; of shifts, 90 % over examples.",
                "",
                *(line for remark in self.remarks for line in (remark, "")),
                "| | | on |",
                "| --- | --- | --- |",
                *rows,
                "",
            ]
        )


def _title(fact: Fact) -> str:
    subject, _, last = fact.name.rpartition("/")
    if fact.name in _TITLES or fact.name.startswith(BENCHMARK):
        return _TITLES.get(fact.name, fact.name)
    return f"Importance moved on {last}" if subject == "shift" else f"{subject}: {_OF_SETS[last]}"


def _figure(fact: Fact) -> str:
    accuracy = fact.name.endswith("accuracy")
    if fact.name.endswith("accuracy_change"):
        return f"{points(fact.limits)}{f', {fact.test}' if fact.test else ''}"
    text = percent(*fact.limits) if accuracy else number(*fact.limits, signed=not fact.name.startswith("shift/"))
    return f"{text}, {fact.test}" if fact.test else text

"""Multiple choice by letter: which option does the model name?"""

from __future__ import annotations

from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary, wilson_interval
from ...evaluation.multiple_choice import LETTER_INSTRUCTION, lettered, named_letter
from .evaluation import Evaluation, Measured, limited, require_options, responses_of
from .gathered_scorer import GatheredScorer

VOICEBENCH_OPTIONS = 4


class ChoicesByLetter(Evaluation):
    """Asks for the letter of the right option, as OpenBookQA and MMSU are asked in VoiceBench; a greedy answer.

    A line of the set has ``question``, ``choices`` and ``gold``; the question is then written with its options under
    letters. Alternatively, the options are already part of the question and spoken in its clip (VoiceBench): such a
    line has no ``choices``, and its answer is the letter. A response that names no letter is wrong;
    ``<modality>_named`` is the share that names one.

    Args:
        source: A name of ``data.sets``, a manifest, or ``spoken-facts/choices``.
        instruction: Written below the options where the set does not write them itself.
        limit: Most items.
    """

    def __init__(
        self,
        source: str = "spoken-facts/choices",
        instruction: str = LETTER_INSTRUCTION,
        limit: int | None = None,
    ) -> None:
        self.source = source
        self.instruction = instruction
        self.limit = limit

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        examples = [self._asked(e) for e in limited(scorer.data.evaluation_set(self.source), self.limit)]
        return Measured([_record(*answered) for answered in responses_of(scorer, examples)])

    @override
    def summarize(self, records: list[Prediction], baseline: list[Prediction]) -> RetentionSummary:  # type: ignore[override]
        summary = super().summarize(records, baseline)
        for modality in dict.fromkeys(record.modality for record in records):
            named = [record.figures["named"] for record in records if record.modality == modality]
            summary.add(f"{modality}_named", wilson_interval(int(sum(named)), len(named)))
        return summary

    def _asked(self, example: Any) -> Any:
        """Puts the options under letters; a clip that does not say them is left out."""
        choices = example.metadata.get("choices")
        if choices is None:
            letter = example.answers[0].upper() if example.answers else ""
            if letter not in ascii_uppercase or len(letter) != 1:
                detail = 'a question without "choices" needs the right letter as its answer'
                raise ValueError(f"{example.location}: {detail}, got {list(example.answers)}")
            return replace(example, answers=(letter,))
        require_options(example, "choices")
        gold = example.metadata["gold"]
        question = lettered(example.question, choices, self.instruction)
        return replace(example, question=question, audio=None, answers=(ascii_uppercase[gold],))


def _record(example: Any, modality: str, response: str) -> Prediction:
    choices = example.metadata.get("choices") or ()
    letter = named_letter(response, len(choices) or VOICEBENCH_OPTIONS)
    return Prediction(
        id=example.id,
        modality=modality,
        question=example.question,
        answers=example.answers,
        prediction=response,
        correct=letter == example.answers[0],
        source=example.source,
        category=str(example.metadata.get("category", "")),
        choices=tuple(choices),
        figures={"named": float(letter is not None)},
    )

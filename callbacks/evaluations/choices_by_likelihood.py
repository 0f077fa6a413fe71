"""Multiple choice by likelihood: which option does the model find likeliest as an answer?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from typing_extensions import override

from ...evaluation import Prediction
from ...evaluation.multiple_choice import Normalisation, likeliest
from .evaluation import Evaluation, Measured, limited, require_options
from .gathered_scorer import GatheredScorer
from .paired_evaluation import modalities_of

_STEM = "\u241f"  # no id holds it


class ChoicesByLikelihood(Evaluation):
    """Scores every option as the answer to the question, in the chat format, end of turn included.

    Nothing is generated, so the model's style of answering does not enter: a model that has learned to answer in
    sentences and one that answers in a word are asked the same. Spoken questions are scored where the set has clips.

    A line of the set has ``question``, ``choices`` and ``gold`` (index of the right one). ``statements`` may hold the
    same options as sentences.

    Args:
        source: A name of ``data.sets``, a manifest, or ``spoken-facts/choices``.
        options: Field that is scored: ``choices``, or ``statements`` for a model that was trained on sentences.
        normalisation: ``none`` compares summed log-likelihoods, ``bytes`` divides them by the options' length.
        limit: Most items.
    """

    def __init__(
        self,
        source: str = "spoken-facts/choices",
        options: str = "choices",
        normalisation: Normalisation = "none",
        limit: int | None = None,
    ) -> None:
        if normalisation not in ("none", "bytes"):
            raise ValueError(f"ChoicesByLikelihood.normalisation: {normalisation!r} (allowed: none, bytes)")
        self.source = source
        self.options = options
        self.normalisation: Normalisation = normalisation
        self.limit = limit

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        examples = limited(scorer.data.evaluation_set(self.source), self.limit)
        for example in examples:
            require_options(example, self.options)
        records = []
        for modality in modalities_of(examples):
            asked = [example for example in examples if example.has(modality)]
            rows = [row for example in asked for row in self._rows(example)]
            losses = scorer.losses(rows, modality)
            records += [record for example in asked if (record := self._record(example, modality, losses)) is not None]
        return Measured(records)

    def _rows(self, example: Any) -> list[Any]:
        options = example.metadata[self.options]
        return [replace(example, id=f"{example.id}{_STEM}{i}", target=text) for i, text in enumerate(options)]

    def _record(self, example: Any, modality: str, losses: dict[str, tuple[float, int]]) -> Prediction | None:
        options, gold = example.metadata[self.options], example.metadata["gold"]
        ids = [f"{example.id}{_STEM}{i}" for i in range(len(options))]
        if not all(identity in losses for identity in ids):  # its clip could not be read
            return None
        scores = [-mean * tokens for mean, tokens in (losses[identity] for identity in ids)]
        chosen = likeliest(scores, options, self.normalisation)
        loss, tokens = losses[ids[gold]]
        return Prediction(
            id=example.id,
            modality=modality,
            question=example.question,
            answers=(options[gold],),
            prediction=options[chosen],
            correct=chosen == gold,
            loss=loss,
            tokens=tokens,
            source=example.source,
            category=str(example.metadata.get("category", "")),
            choices=tuple(options),
            scores=tuple(scores),
        )

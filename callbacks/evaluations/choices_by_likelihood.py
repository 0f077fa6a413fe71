"""Multiple choice by likelihood: which option does the model find likeliest as an answer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary, paired_difference, wilson_interval
from ...evaluation.multiple_choice import Normalisation, likeliest
from .evaluation import Evaluation, Measured, limited, require_options
from .gathered_scorer import GatheredScorer
from .item_scorer import exchange_clips
from .paired_evaluation import modalities_of

_STEM = "\u241f"  # no id holds it
_EXCHANGED = "right_with_another_clip"

Losses = Mapping[str, tuple[float, int]]


class ChoicesByLikelihood(Evaluation):
    """Scores every option as the answer to the question, in the chat format, end of turn included.

    Nothing is generated, so the model's style of answering does not enter: a model that has learned to answer in
    sentences and one that answers in a word are asked the same. Spoken questions are scored where the set has clips.

    A line of the set has ``question``, ``choices`` and ``gold`` (index of the right one). ``statements`` may hold the
    same options as sentences.

    What a spoken question measures is knowledge *and* hearing, and an option may be likely whatever was asked ("A ripe
    banana is yellow."). ``exchange`` asks each spoken question again with another one's clip:
    ``speech_exchanged_accuracy`` is what the options alone give away, ``speech_hearing_gain`` what the right clip adds
    to it. ``speech_minus_text`` compares the spoken questions with the same ones written: what is lost on the way
    through the ear. Both differences are of the same items, with Tango's interval.

    Args:
        source: A name of ``data.sets``, a manifest, or ``spoken-facts/choices``.
        options: Field that is scored: ``choices``, or ``statements`` for a model that was trained on sentences.
        normalisation: ``none`` compares summed log-likelihoods, ``bytes`` divides them by the options' length.
        limit: Most items.
        exchange: Ask spoken questions with exchanged clips too; one random cycle, always the same.
    """

    def __init__(
        self,
        source: str = "spoken-facts/choices",
        options: str = "choices",
        normalisation: Normalisation = "none",
        limit: int | None = None,
        exchange: bool = False,
    ) -> None:
        if normalisation not in ("none", "bytes"):
            raise ValueError(f"ChoicesByLikelihood.normalisation: {normalisation!r} (allowed: none, bytes)")
        self.source = source
        self.options = options
        self.normalisation: Normalisation = normalisation
        self.limit = limit
        self.exchange = exchange

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        examples = limited(scorer.data.evaluation_set(self.source), self.limit)
        for example in examples:
            require_options(example, self.options)
        records = []
        for modality in modalities_of(examples):
            asked = [example for example in examples if example.has(modality)]
            losses = self._losses(scorer, asked, modality)
            exchanged: Losses = {}
            if self.exchange and modality == "speech":
                exchanged = self._losses(scorer, exchange_clips(asked, seed=0), modality)
            found = (self._record(example, modality, losses, exchanged) for example in asked)
            records += [record for record in found if record is not None]
        return Measured(records)

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        summary = super().summarize(records, baseline)
        spoken = {record.id: bool(record.correct) for record in records if record.modality == "speech"}
        written = {record.id: bool(record.correct) for record in records if record.modality == "text"}
        both = [identity for identity in spoken if identity in written]
        if both:
            difference = paired_difference([written[i] for i in both], [spoken[i] for i in both])
            summary.add("speech_minus_text", difference)
        exchanged = {record.id: bool(record.figures[_EXCHANGED]) for record in records if _EXCHANGED in record.figures}
        if exchanged:
            others = list(exchanged.values())
            summary.add("speech_exchanged_accuracy", wilson_interval(sum(others), len(others)))
            summary.add("speech_hearing_gain", paired_difference(others, [spoken[i] for i in exchanged]))
        return summary

    def _losses(self, scorer: GatheredScorer, asked: Sequence[Any], modality: str) -> Losses:
        return scorer.losses([row for example in asked for row in self._rows(example)], modality)

    def _rows(self, example: Any) -> list[Any]:
        options = example.metadata[self.options]
        return [replace(example, id=f"{example.id}{_STEM}{i}", target=text) for i, text in enumerate(options)]

    def _scores(self, example: Any, losses: Losses) -> list[float] | None:
        """Returns the log-likelihood of each option; None for an item whose clip could not be read."""
        ids = [f"{example.id}{_STEM}{i}" for i in range(len(example.metadata[self.options]))]
        if not all(identity in losses for identity in ids):
            return None
        return [-mean * tokens for mean, tokens in (losses[identity] for identity in ids)]

    def _record(self, example: Any, modality: str, losses: Losses, exchanged: Losses) -> Prediction | None:
        options, gold = example.metadata[self.options], example.metadata["gold"]
        scores, others = self._scores(example, losses), self._scores(example, exchanged)
        if scores is None:
            return None
        chosen = likeliest(scores, options, self.normalisation)
        loss, tokens = losses[f"{example.id}{_STEM}{gold}"]
        figures: dict[str, float] = {}
        if others is not None:
            figures[_EXCHANGED] = float(likeliest(others, options, self.normalisation) == gold)
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
            figures=figures,
        )

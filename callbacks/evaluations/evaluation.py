"""The contract of an evaluation that the suite runs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...evaluation import Prediction, RetentionSummary, summarize
from .gathered_scorer import GatheredScorer
from .paired_evaluation import modalities_of


@dataclass
class Measured:
    """What an evaluation found.

    Attributes:
        records: One an item and modality.
        figures: Further metrics with their limits: name -> (value, low, high).
    """

    records: list[Prediction]
    figures: dict[str, tuple[float, float, float]] = field(default_factory=dict)


class Evaluation(ABC):
    """Scores a model on one set. What varies is a subclass, named in YAML (``class_path``)."""

    @abstractmethod
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        """Scores the model; every rank calls this, and every rank returns the same.

        Args:
            scorer: Asks the model, and gives its data module.
            name: Of the evaluation in the config.
        """

    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        """Returns the metrics of the records, and of their change since the untouched model's."""
        return summarize(records, baseline)


def limited(examples: Sequence[Any], limit: int | None) -> list[Any]:
    """Chooses at most ``limit`` examples by hash and keeps their order: no category is favoured."""
    kept = limited_ids([example.id for example in examples], limit)
    return [example for example in examples if example.id in kept]


def limited_ids(ids: Sequence[str], limit: int | None) -> set[str]:
    """Chooses at most ``limit`` ids by hash."""
    return set(sorted(ids, key=lambda identity: hashlib.sha256(identity.encode()).digest())[:limit])


def require_options(example: Any, field: str) -> None:
    """Refuses an item whose options cannot be asked.

    Args:
        example: The item.
        field: Where its options are; ``gold`` is the index of the right one.

    Raises:
        ValueError: If they are not two or more texts, or ``gold`` is none of them.
    """
    options, gold = example.metadata.get(field), example.metadata.get("gold")
    valid = isinstance(options, Sequence) and not isinstance(options, str) and len(options) > 1
    if not valid or not all(isinstance(text, str) and text for text in options):
        raise ValueError(f'{example.location}: "{field}" is {options!r}; allowed: a list of two or more texts')
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(options):
        raise ValueError(f'{example.location}: "gold" is {gold!r}; allowed: 0 to {len(options) - 1}')


def responses_of(
    scorer: GatheredScorer, examples: Sequence[Any], max_new_tokens: int | None = None
) -> Iterator[tuple[Any, str, str]]:
    """Yields each example in each of its modalities, with the greedy response.

    One whose clip cannot be read is left out. ``max_new_tokens`` is the model's own setting by default.
    """
    for modality in modalities_of(examples):
        asked = [example for example in examples if example.has(modality)]
        responses = scorer.responses(asked, modality, max_new_tokens=max_new_tokens)
        yield from ((example, modality, responses[example.id]) for example in asked if example.id in responses)

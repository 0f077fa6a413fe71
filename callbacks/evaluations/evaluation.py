"""The contract of an evaluation that the suite runs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...evaluation import Prediction, RetentionSummary, summarize
from .gathered_scorer import GatheredScorer


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
        """Scores the model; every rank comes here, and every rank returns the same.

        Args:
            scorer: Asks the model, and gives its data module.
            name: Of the evaluation in the config.
        """

    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        """The metrics of the records, and of their change since the untouched model's."""
        return summarize(records, baseline)


def limited(examples: Sequence[Any], limit: int | None) -> list[Any]:
    """At most ``limit`` of the examples, in their order: a fixed choice by hash, so that no category is favoured."""
    if limit is None or len(examples) <= limit:
        return list(examples)
    chosen = sorted(examples, key=lambda example: hashlib.sha256(example.id.encode()).digest())[:limit]
    kept = {example.id for example in chosen}
    return [example for example in examples if example.id in kept]

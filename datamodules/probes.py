"""Fixed examples on which importance is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .example import Example, Modality
from .source import Source


@dataclass
class Probe:
    """A fixed choice of examples, which depends on nothing but this: source, modality, number and seed."""

    source: str | Source
    """A manifest, ``spoken-facts/SPLIT``, or a source."""
    modality: Modality = "text"
    """"speech" or "text"."""
    examples: int = 32
    """How many."""
    seed: int = 0
    """Of the choice."""
    batch_size: int = 8
    """Rows of a batch; the scores are per example, so this is a matter of memory."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if self.modality not in ("speech", "text"):
            raise ValueError(f"probe modality: {self.modality!r} (allowed: speech, text)")
        if self.examples < 1 or self.batch_size < 1:
            raise ValueError(
                f"probe examples: {self.examples}, batch_size: {self.batch_size} (allowed: at least 1 each)"
            )

    def choose(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with the smallest hashes of (seed, id): the same whatever the order, and stable under growth.

        Raises:
            ValueError: If no example has the modality.
        """
        having = [example for example in examples if example.has(self.modality)]
        if not having:
            raise ValueError(f"probe: none of the {len(examples)} examples of {self.source} has {self.modality}")
        return sorted(having, key=lambda e: hashlib.sha256(f"{self.seed}:{e.id}".encode()).digest())[: self.examples]

"""Text that is rehearsed while speech is learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_info

from .batches.token_budget_sampler import TokenBudgetSampler
from .sources.bad_examples import BadExamples
from .sources.example import Example
from .sources.named import SourceName, read_sources

KIND = "replay"
"""Of batches: replayed text never shares one with the training examples."""


@dataclass
class Replay:
    """Text beside the training examples: questions read instead of heard, or plain text."""

    source: SourceName
    """A manifest (its questions as text), ``spoken-facts/SPLIT``, a .txt file, or a source (``PlainText``)."""
    ratio: float = 0.05
    """Share of replayed examples among all examples of an epoch; other ones are drawn in each epoch."""

    def __post_init__(self) -> None:
        """Refuse a ratio that cannot be meant."""
        if not 0 < self.ratio < 1:
            raise ValueError(f"replay.ratio: {self.ratio} (allowed: between 0 and 1, such as 0.05)")

    def read(self, bad: BadExamples) -> list[Example]:
        """The examples that can be read as text.

        Raises:
            ValueError: If there are none.
        """
        examples = [example for example in read_sources(self.source, bad) if example.has("text")]
        if not examples:
            raise ValueError(f"replay.source: {self.source} has no text")
        return examples

    def announce(self, sampler: TokenBudgetSampler, kinds: Iterable[str], pool: int) -> dict[str, float]:
        """Say how much text is replayed in an epoch, and return it as metrics.

        Args:
            sampler: Of training.
            kinds: Of the other rows.
            pool: Number of examples that the replayed ones are drawn from.
        """
        rows = sampler.rows(KIND)
        share = rows / (rows + sum(sampler.rows(kind) for kind in kinds))
        rank_zero_info(f"replay: about {rows} examples an epoch ({share:.1%} of all), drawn from {pool}")
        return {"data/replay_examples": rows, "data/replay_share": share}

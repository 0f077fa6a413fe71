"""Text that is replayed while speech is learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_info

from .batches.token_budget_sampler import TokenBudgetSampler
from .sources.bad_examples import BadExamples
from .sources.example import Example
from .sources.named import SourceName, read_sources

KIND = "replay"
"""Kind of its batches: replayed text never shares one with the training examples."""


@dataclass
class Replay:
    """Text beside the training examples: questions read instead of heard, or plain text."""

    source: SourceName
    """A manifest (its questions as text), ``spoken-facts/SPLIT``, a .txt file, or a source (``PlainText``)."""
    ratio: float = 0.05
    """Share of replayed examples among all examples of an epoch; other ones are drawn in each epoch."""

    def __post_init__(self) -> None:
        """Refuses a ratio that makes no sense."""
        if not 0 < self.ratio < 1:
            raise ValueError(f"replay.ratio: {self.ratio} (allowed: between 0 and 1, such as 0.05)")


class ReplayPool:
    """The text that a run replays, read once; empty if nothing is replayed.

    Args:
        replay: What to rehearse, or None.
        bad: Receives the examples that cannot be used.
    """

    def __init__(self, replay: Replay | None, bad: BadExamples) -> None:
        self.ratio = replay.ratio if replay else 0.0
        self._replay = replay
        self._bad = bad
        self._read: list[Example] | None = None

    def examples(self) -> list[Example]:
        """Returns the examples that can be read as text.

        Raises:
            ValueError: If the source has none.
        """
        if self._replay is None:
            return []
        if self._read is None:
            source = self._replay.source
            self._read = [example for example in read_sources(source, self._bad) if example.has("text")]
            if not self._read:
                raise ValueError(f"replay.source: {source} has no text")
        return self._read

    def announce(self, sampler: TokenBudgetSampler, kinds: Iterable[str]) -> dict[str, float]:
        """Says how much text is replayed in an epoch, and gives it as metrics: none where nothing is replayed.

        Args:
            sampler: Plans the batches of training.
            kinds: Kinds of the other rows.
        """
        if self._replay is None:
            return {}
        rows = sampler.rows(KIND)
        share = rows / (rows + sum(sampler.rows(kind) for kind in kinds))
        pool = len(self.examples())
        rank_zero_info(f"replay: about {rows} examples per epoch ({share:.1%} of all), drawn from {pool}")
        return {"data/replay_examples": rows, "data/replay_share": share}

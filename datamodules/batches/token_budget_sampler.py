"""Batches of similar length under a budget of tokens, the same number on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

_WIDTH = 1.1
"""A bucket holds lengths up to this ratio: at most 10 % padding where there are enough examples."""
_MIN_BATCHES = 2
"""... and at least this many batches, so that their members change from epoch to epoch."""


class TokenBudgetSampler(Sampler[list[int]]):
    """Batch sampler: rows x longest row of a batch never exceeds ``tokens_per_batch``.

    Where rows have several parts (a question and its text twin), the longest of each part count together.

    The examples are sorted by length and cut into buckets; in each epoch the members of a bucket are drawn anew into
    its batches, and the batches are shuffled. The number of batches is the same in every epoch. Ranks receive different
    batches of similar length and of the same kind at each step. To give every rank the same number, batches are
    halved: nothing is lost. Only where batches of one example cannot be halved, ``repeat`` decides: with it (training)
    some batches are repeated, at most ``world_size - 1`` of a kind in an epoch; without it (evaluation) nothing is
    repeated and some ranks have one batch less.

    Args:
        lengths: Lengths of the examples in tokens (audio positions included): one number each, or one for each part.
        tokens_per_batch: The budget.
        max_examples: Most rows of a batch, or None.
        kinds: Examples of different kinds never share a batch (modalities); None if all are alike.
        seed: Seed of the shuffling, together with the epoch.
        shuffle: False keeps the order by length.
        rank: Rank of this process.
        world_size: Number of processes.
        shares: Kind -> its share of all rows of an epoch: as many of its batches are drawn anew in each epoch, and
            taken several times where there are too few. Kinds that are not named give all their batches.
        repeat: Whether batches may be repeated to give every rank the same number.

    Raises:
        ValueError: If an example is longer than the budget, or an argument is out of range.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Sequence[Sequence[int]],
        tokens_per_batch: int,
        max_examples: int | None = None,
        kinds: Sequence[str] | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        shares: Mapping[str, float] | None = None,
        repeat: bool = True,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self._parts = self.lengths.reshape(len(self.lengths), -1) if len(self.lengths) else np.zeros((0, 1), int)
        self._sizes = self._parts.sum(axis=1)
        self.tokens_per_batch = tokens_per_batch
        self.max_examples = max_examples
        self.seed = seed
        self.shuffle = shuffle
        self.repeat = repeat
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._check()
        self._kinds = np.asarray(kinds if kinds is not None else [""] * len(self.lengths))
        self.shares = dict(shares or {})
        self._buckets = [bucket for kind in np.unique(self._kinds) for bucket in self._cut(kind)]
        self._length = len(self.batches(0))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that iteration shuffles for."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[list[int]]:
        """Returns this rank's batches of an epoch, as lists of indices."""
        rng = np.random.default_rng([self.seed, epoch]) if self.shuffle else None
        steps = [step for kind in np.unique(self._kinds) for step in self._steps(kind, rng)]
        order = rng.permutation(len(steps)) if rng is not None else range(len(steps))
        chosen = [steps[i] for i in order]
        # Every step turns by one, so that no rank always receives the longest batch.
        turned = [(step, (self.rank + turn) % self.world_size) for turn, step in enumerate(chosen)]
        return [step[i].tolist() for step, i in turned if i < len(step)]

    def rows(self, kind: str) -> int:
        """Counts the rows of a kind in the first epoch, over all ranks; others have nearly as many."""
        rng = np.random.default_rng([self.seed, 0]) if self.shuffle else None
        return sum(len(batch) for step in self._steps(kind, rng) for batch in step)

    def _steps(self, kind: str, rng: np.random.Generator | None) -> list[list[np.ndarray]]:
        """Returns a kind's batches of an epoch, in groups of one for each rank."""
        of_kind = [batch for bucket in self._of_kind(kind) for batch in self._draw(bucket, rng)]
        equal = self._equalise(of_kind)
        steps = [equal[i : i + self.world_size] for i in range(0, len(equal), self.world_size)]
        if kind not in self.shares:
            return steps
        others = int((~np.isin(self._kinds, list(self.shares))).sum())
        wanted = self.shares[kind] / (1 - sum(self.shares.values())) * others
        count = max(1, round(wanted * len(steps) / int((self._kinds == kind).sum())))
        rounds = range(-(-count // len(steps)))
        drawn = [i for _ in rounds for i in (rng.permutation(len(steps)) if rng is not None else range(len(steps)))]
        return [steps[i] for i in drawn[:count]]

    def _of_kind(self, kind: str) -> list[np.ndarray]:
        return [bucket for bucket in self._buckets if self._kinds[bucket[0]] == kind]

    def _cut(self, kind: str) -> list[np.ndarray]:
        """Sorts the indices of a kind by length and cuts them into buckets."""
        indices = np.flatnonzero(self._kinds == kind)
        indices = indices[np.argsort(self._sizes[indices], kind="stable")]
        sizes = self._sizes[indices]
        starts = [0]
        for position in range(1, len(indices)):
            count, longest = position - starts[-1], int(sizes[position - 1])
            full = count >= _MIN_BATCHES * self._rows(longest)
            if full and sizes[position] > _WIDTH * sizes[starts[-1]]:
                starts.append(position)
        return np.split(indices, starts[1:]) if len(indices) else []

    def _rows(self, longest: int) -> int:
        """Returns the number of rows that fit, by the length of the longest: at least one."""
        rows = max(1, self.tokens_per_batch // max(longest, 1))
        return min(rows, self.max_examples) if self.max_examples else rows

    def _draw(self, bucket: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Cuts a bucket into batches of nearly equal size."""
        rows = self._rows(int(self._parts[bucket].max(axis=0).sum()))
        members = rng.permutation(bucket) if rng is not None else bucket
        return np.array_split(members, -(-len(bucket) // rows))

    def _equalise(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Halves the batches with most rows until their number is a multiple of the ranks."""
        batches = list(batches)
        while batches and len(batches) % self.world_size:
            fullest = max(range(len(batches)), key=lambda i: len(batches[i]))
            if len(batches[fullest]) == 1:
                missing = -len(batches) % self.world_size
                repeated = [batches[i % len(batches)] for i in range(missing)] if self.repeat else []
                return batches + repeated
            batches[fullest : fullest + 1] = np.array_split(batches[fullest], 2)
        return batches

    def _check(self) -> None:
        if self.max_examples is not None and self.max_examples < 1:
            raise ValueError(f"max_examples_per_batch: {self.max_examples} (allowed: at least 1)")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size} (allowed: 0 to {self.world_size - 1})")
        if len(self._sizes) and self._sizes.max() > self.tokens_per_batch:
            longest = int(self._sizes.argmax())
            raise ValueError(
                f"tokens_per_batch: {self.tokens_per_batch} is less than the {self._sizes[longest]} tokens of example "
                f"{longest} (allowed: at least the longest example)"
            )

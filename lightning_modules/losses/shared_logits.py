"""Objectives of one step that need the same predictions share a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..contract import Batch
from .answer_loss import AnswerLogits


class SharedLogits:
    """The answer logits of the batches of one training step; nothing is kept outside a step."""

    def __init__(self) -> None:
        self._found: dict[int, AnswerLogits] | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Keeps what is computed within the context."""
        self._found = {}
        try:
            yield
        finally:
            self._found = None

    def of(self, batch: Batch, compute: Callable[[Batch], AnswerLogits]) -> AnswerLogits:
        """Returns the batch's logits, computed at the first request of a step."""
        if self._found is None:
            return compute(batch)
        if id(batch) not in self._found:
            self._found[id(batch)] = compute(batch)
        return self._found[id(batch)]

"""Asks a model questions on all ranks, and gives every rank all results."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from typing_extensions import override

from ..stopping.give_way import taking_turns
from .item_scorer import ItemScorer
from .score_memory import ScoreMemory

Value = TypeVar("Value")


class GatheredScorer(ItemScorer):
    """The ranks divide the items among themselves; every rank must call the same methods in the same order.

    Args:
        trainer: Its data module makes the batches.
        pl_module: The model.
        max_new_tokens: Longest response; None leaves it to the model.
        memory: Knows what the model scored on text, if it does.
    """

    def __init__(
        self, trainer: Trainer, pl_module: Any, max_new_tokens: int | None, memory: ScoreMemory | None = None
    ) -> None:
        super().__init__(trainer, pl_module, max_new_tokens, memory)
        self.rank, self.world_size = trainer.global_rank, trainer.world_size

    @override
    def responses(self, *args: Any, **options: Any) -> dict[str, str]:
        return self.gathered(super().responses(*args, **options))

    @override
    def losses(self, examples: Sequence[Any], modality: str) -> dict[str, tuple[float, int]]:
        return self.gathered(super().losses(examples, modality))

    @contextmanager
    def giving_way(self, llm: Any) -> Generator[None, None, None]:
        """Allows stopping before each forward pass of the LLM; every rank must call it."""
        with taking_turns(self.trainer) as give_way:
            hook = llm.register_forward_pre_hook(lambda *_: give_way())
            try:
                yield
            finally:
                hook.remove()

    @contextmanager
    def reading_text(self) -> Generator[Any, None, None]:
        """Returns the bare LLM as it reads text without any speech, in the trainer's precision."""
        with self.precision.val_step_context(), self.model.tuning.reading(torch.zeros(1, 1, dtype=torch.bool)):
            yield self.model.llm

    def gathered(self, mine: dict[str, Value]) -> dict[str, Value]:
        """Collects all ranks' entries, on every rank."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return mine
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, mine)
        return {key: value for part in parts for key, value in part.items()}

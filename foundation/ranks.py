"""Sums and gathers over the ranks of a distributed run; every rank must call them in the same order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed


class Ranks:
    """The ranks that share a measurement.

    Args:
        enabled: ``False`` measures on this rank alone even if a process group exists.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.size, self.rank = 1, 0
        if enabled and distributed.is_available() and distributed.is_initialized():
            self.size, self.rank = distributed.get_world_size(), distributed.get_rank()

    def gather(self, value: Any) -> list[Any]:
        """Collects the value of every rank, in rank order. Values are small Python or numpy objects."""
        if self.size == 1:
            return [value]
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, value)
        return parts

    def sum(self, tensor: Tensor) -> None:
        """Sums a tensor over the ranks, in place."""
        if self.size > 1:
            moved = tensor.cuda() if distributed.get_backend() == "nccl" and not tensor.is_cuda else tensor
            distributed.all_reduce(moved)
            if moved is not tensor:
                tensor.copy_(moved)

    def largest(self, value: int) -> int:
        """Returns the largest value over all ranks."""
        return max(self.gather(value))


def is_sharded(model: torch.nn.Module) -> bool:
    """Returns whether FSDP has sharded parameters: then every rank must run the same number of forward passes."""
    return any(hasattr(p, "full_tensor") for p in model.parameters())


def holds_all(model: torch.nn.Module) -> bool:
    """Tells whether this rank has the values of all parameters: none are sharded, or read by another rank alone."""
    return not is_sharded(model) and not any(p.is_meta for p in model.parameters())


@torch.no_grad()
def share_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Sends rank 0's values to every rank, in place; does nothing in a single process.

    Args:
        tensors: The same on all ranks except for their values.
    """
    if distributed.is_available() and distributed.is_initialized():
        for tensor in tensors:
            distributed.broadcast(tensor.data, src=0)

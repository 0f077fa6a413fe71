"""Agreement among the ranks of a distributed run."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed


@torch.no_grad()
def share_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Gives every rank the values that rank 0 has, in place; nothing to do in one process.

    Args:
        tensors: The same on all ranks but for their values.
    """
    if distributed.is_available() and distributed.is_initialized():
        for tensor in tensors:
            distributed.broadcast(tensor.data, src=0)

"""Weights sharded over several ranks (FSDP2): gathered for work on one rank, or used part by part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from .ranks import is_sharded

KEPT = "kept_after_forward"
"""Attribute of a block that stays gathered between its forward and its backward pass."""


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Gathers all weights on every rank within the context, in their compute type.

    Code inside runs as if nothing were sharded: any number of forward and backward passes without collectives. It takes
    the memory of the whole model; gradients and optimizer state stay where they are. Changes to weights inside are
    lost. Every rank must enter; nested contexts and unsharded modules are left alone.

    Args:
        module: The outermost one that is sharded, between two steps.
    """
    if not is_sharded(module):
        yield
        return
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    inner = [part for part in parts if part is not module]  # the outermost one keeps its own weights
    try:
        with torch.inference_mode(False), torch.no_grad():
            for part in parts:
                part.set_reshard_after_backward(False, recurse=False)
                part.unshard()
        for part in inner:
            part.set_reshard_after_forward(False, recurse=False)
        yield
    finally:
        for part in inner:
            part.set_reshard_after_forward(not getattr(part, KEPT, False), recurse=False)
        for part in parts:
            part.set_reshard_after_backward(True, recurse=False)
        # FSDP2 records which blocks ran: ranks that ran different ones would prefetch different ones in the next
        # backward.
        parts[0].reset_iter_state()
        sharded(module)


def sharded(module: nn.Module) -> None:
    """Leaves each rank only its part of the weights, which is what optimizers and checkpoints know."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def own_part(tensor: Tensor) -> Tensor:
    """Returns the part of a tensor that lies on this rank, in place; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Returns the part of a tensor that corresponds to this rank's part of another one of the same shape.

    Args:
        whole: The same on every rank.
        like: Determines how it is divided, and on which device.
    """
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    moved = whole.to(like.to_local().device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None).to_local().clone()


def sum_over_parts(total: Tensor, like: Tensor) -> None:
    """Sums the ranks' results for their parts of tensors, in place; parts held by several ranks count once.

    Args:
        total: This rank's sum.
        like: One of the tensors; if it is not sharded, the sum is whole already.
    """
    if isinstance(like, DTensor):
        for dimension, placement in enumerate(like.placements):
            if placement.is_shard():
                distributed.all_reduce(total, group=like.device_mesh.get_group(dimension))


def whole_of(tensor: Tensor) -> Tensor:
    """Returns the whole tensor; every rank must call it if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

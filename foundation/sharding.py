"""Weights whose parts lie on several ranks (FSDP2): put together for work of one rank, and met part by part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from .ranks import is_sharded


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Puts all weights on every rank while the context lasts, in the type in which they compute.

    What is inside runs as if nothing were sharded: forward and backward passes without any collective, as many as a
    rank likes. It takes the memory of the whole model; gradients and the optimizer's state stay where they are. A
    weight that is written to inside is not kept. Every rank must enter; inside of another such context, and for a
    module that is not sharded, nothing is done.

    Args:
        module: The outermost one that is sharded, between two steps.
    """
    if not is_sharded(module):
        yield
        return
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    inner = [part for part in parts if part is not module]  # the outermost one keeps its weights by itself
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
            part.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.set_reshard_after_backward(True, recurse=False)
        # FSDP2 has noted which blocks ran: ranks that ran others would prefetch others in the next backward pass.
        parts[0].reset_iter_state()
        sharded(module)


def sharded(module: nn.Module) -> None:
    """Leaves each rank its part of the weights alone, which is what optimizers and checkpoints know."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def own_part(tensor: Tensor) -> Tensor:
    """Returns the part of a tensor that lies on this rank, in place; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Returns the part of a tensor that belongs to what this rank holds of another, of the same shape.

    Args:
        whole: The same on every rank.
        like: Decides how it is divided, and where it lies.
    """
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    moved = whole.to(like.to_local().device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None).to_local().clone()


def sum_over_parts(total: Tensor, like: Tensor) -> None:
    """Sums what ranks found for their parts of tensors, in place; parts that several ranks hold count once.

    Args:
        total: This rank's sum.
        like: One of the tensors; if it is not sharded, the sum is whole already.
    """
    if isinstance(like, DTensor):
        for dimension, placement in enumerate(like.placements):
            if placement.is_shard():
                distributed.all_reduce(total, group=like.device_mesh.get_group(dimension))


def whole_of(tensor: Tensor) -> Tensor:
    """Returns all of a tensor; every rank must come here if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

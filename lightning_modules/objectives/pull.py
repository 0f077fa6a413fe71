"""A quadratic pull of weights towards what they were, without temporaries of the model's size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...foundation.sharding import own_part, sum_over_parts
from ..precision import at_least_float32

PIECE = 1 << 24
"""Weights processed at a time: the largest temporary takes 64 MB, whatever the model."""


class Pull(NamedTuple):
    """A weight and the value it is pulled towards.

    Attributes:
        weight: The trained parameter.
        anchor: Its original value, in the same shape; this rank's part if sharded.
        strength: Factor of each entry, likewise; None for 1 everywhere.
    """

    weight: nn.Parameter
    anchor: Tensor
    strength: Tensor | None


@torch.no_grad()
def pull_value(pulls: Iterable[Pull]) -> Tensor:
    """Computes 1/2 sum_i s_i (theta_i - theta*_i)^2, summed in float64 and over ranks with parts (scalar, float32)."""
    total = torch.zeros((), dtype=torch.float64)
    like: Tensor | None = None
    for pull in pulls:
        for weight, anchor, strength in _pieces(pull.weight, pull.anchor, pull.strength):
            assert weight is not None
            assert anchor is not None
            away = at_least_float32(weight) - anchor
            drawn = away if strength is None else away * strength
            total = total.to(away.device) + torch.linalg.vecdot(drawn, away).double()
        like = pull.weight
    if like is not None:
        sum_over_parts(total, like)
    return (total / 2).float()


@torch.no_grad()
def add_pull(pulls: Iterable[Pull], factor: float) -> None:
    """Adds the gradient of ``factor * pull_value``, s_i (theta_i - theta*_i), to the weights' gradients in place."""
    for pull in pulls:
        if pull.weight.grad is None:
            pull.weight.grad = torch.zeros_like(pull.weight)
        for weight, anchor, strength, gradient in _pieces(*pull, pull.weight.grad):
            assert weight is not None
            assert anchor is not None
            assert gradient is not None
            away = at_least_float32(weight) - anchor
            gradient.add_(away if strength is None else away.mul_(strength), alpha=factor)


def _pieces(*tensors: Tensor | None) -> Iterable[tuple[Tensor | None, ...]]:
    """Views of at most ``PIECE`` entries of tensors of one shape; of None, None."""
    size = next(own_part(tensor).numel() for tensor in tensors if tensor is not None)
    flat = [None if tensor is None else own_part(tensor.detach()).view(-1) for tensor in tensors]
    for start in range(0, size, PIECE):
        yield tuple(None if tensor is None else tensor[start : start + PIECE] for tensor in flat)

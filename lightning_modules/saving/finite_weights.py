"""Weights that are infinite or not a number: never written, and refused when read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from ...foundation.sharding import own_part


def not_finite(checkpoint: Mapping[str, Any]) -> str | None:
    """Names a weight of a checkpoint, or a moment of its optimizer, that is not finite; None if all are.

    Of sharded tensors this rank's part is looked at.

    Args:
        checkpoint: Lightning's.
    """
    tensors = list(_tensors(checkpoint))
    if torch.isfinite(get_total_norm([tensor for _, tensor in tensors])):  # ten times as fast as checking each value
        return None
    for name, tensor in tensors:
        if bad := int((~torch.isfinite(tensor)).sum()):
            return f"{name} is not finite in {bad} of {tensor.numel()} places"
    return None


def _tensors(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    named = list(checkpoint["state_dict"].items())
    for optimizer in checkpoint.get("optimizer_states", ()):
        for number, state in optimizer["state"].items():
            named += [(f"{key} of the optimizer's parameter {number}", value) for key, value in state.items()]
    for name, value in named:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            continue
        if (here := own_part(value)).numel():
            yield name, here

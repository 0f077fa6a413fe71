"""A name for weights by their content, not by their location."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def weights_digest(module: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Returns the SHA-256 of a module's floating weights in the order of its state: shapes, types and bytes.

    Names are left out, because libraries rename parameters between versions.

    Args:
        module: On any device.
        dtype: To cast to first: bfloat16 gives the same digest whether the weights were loaded in 16, 32 or 64 bits.
    """
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            cast = tensor.detach().to("cpu", dtype or tensor.dtype)
            digest.update(f"{tuple(cast.shape)}{cast.dtype}".encode())
            digest.update(raw_bytes(cast))
    return digest.hexdigest()


def raw_bytes(tensor: Tensor) -> memoryview:
    """Returns the bytes of a CPU tensor of any type, without a copy where it is contiguous."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data

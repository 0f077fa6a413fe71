"""Floating-point types: what is computed in at least float32, and what keeps its own type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def at_least_float32(tensor: Tensor) -> Tensor:
    """Returns the tensor in at least float32, for sums, losses and everything that is logged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def main_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """Returns the type of most floating-point numbers among the tensors; torch's default if there are none."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            sizes[tensor.dtype] += tensor.numel()
    return sizes.most_common(1)[0][0] if sizes else torch.get_default_dtype()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Sets torch's default type within the context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def own_types_kept(module: nn.Module) -> Iterator[None]:
    """Preserves tensors with their own type while a module is converted to another type.

    ``trainer.precision: bf16-true`` converts a whole module. Some tensors must not be converted: rotary frequencies,
    which are constants (buffers outside checkpoints; rounded to bfloat16 they rotate position 1000 by up to two
    radians), and anything loaded or created in a wider type than most parameters, such as the routers of some mixtures
    of experts.

    Args:
        module: The module to be converted, in place, within the context.
    """
    kept = list(_own_types(module))
    yield
    for owner, name, tensor in kept:
        now: Tensor = getattr(owner, name)
        if now.dtype == tensor.dtype:
            continue
        if isinstance(now, nn.Parameter):
            now.data = tensor.to(now.device)
        else:
            setattr(owner, name, tensor.to(now.device))


def _own_types(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yields the owner, name and current value of each tensor that has its own type."""
    most = torch.finfo(main_dtype(module.parameters())).bits
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_floating_point() and torch.finfo(parameter.dtype).bits > most:
                yield owner, name, parameter.data
        for name, buffer in owner.named_buffers(recurse=False, remove_duplicate=False):
            if not buffer.is_floating_point():
                continue
            if name in owner._non_persistent_buffers_set or torch.finfo(buffer.dtype).bits > most:
                yield owner, name, buffer

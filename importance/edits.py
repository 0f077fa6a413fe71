"""Temporary changes of weights, undone bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .site_table import Site
from .weights import base_module, is_transposed


@contextmanager
def zeroed(sites: Mapping[int, Site], masks: Mapping[int, Tensor]) -> Iterator[None]:
    """Sets chosen entries of effective weights to zero within the context.

    Under LoRA the base weight takes the negative of the adapter's part there, so that the sum vanishes.

    Args:
        sites: Index -> site.
        masks: Index -> boolean mask (O, I).
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        for index, mask in masks.items():
            stored, chosen, values = _selection(sites[index], mask, factor=0.0)
            kept.append((stored, chosen, stored[chosen].clone()))
            stored[chosen] = values
        yield
    finally:
        for stored, chosen, values in reversed(kept):
            stored[chosen] = values


@contextmanager
def shrunk(site: Site, mask: Tensor, amount: float) -> Iterator[None]:
    """Shrinks chosen entries of an effective weight by ``amount`` (1 removes them) within the context."""
    stored, chosen, values = _selection(site, mask, factor=1.0 - amount)
    kept = stored[chosen].clone()
    try:
        stored[chosen] = values
        yield
    finally:
        stored[chosen] = kept


@torch.no_grad()
def _selection(site: Site, mask: Tensor, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the stored weight, the mask in its layout, and new values there: the effective ones times ``factor``."""
    stored = site.stored.detach()
    effective = site.weight().reshape(site.shape)
    mask = mask.to(stored.device)
    transposed = site.parameter is None and is_transposed(base_module(site.module))
    if transposed:
        effective, mask = effective.T, mask.T
    mask, effective = mask.reshape(stored.shape), effective.reshape(stored.shape)
    adapter = effective[mask] - stored[mask]
    return stored, mask, (effective[mask] * factor - adapter).to(stored.dtype)


@contextmanager
def weights_at(model: nn.Module, names: list[str], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Replaces the values of some parameters within the context."""
    parameters = dict(model.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in names}
    try:
        with torch.no_grad():
            for name in names:
                parameters[name].copy_(values[name])
        yield
    finally:
        with torch.no_grad():
            for name in names:
                parameters[name].copy_(kept[name])


@contextmanager
def on_the_line(model: nn.Module, start: Mapping[str, Tensor]) -> Iterator[Callable[[float], Mapping[str, Tensor]]]:
    """Moves some parameters to points between other values and their own within the context.

    Three copies of them exist in the meantime: these values, their own, and the model's.

    Args:
        model: Whose parameters move.
        start: Parameter name -> value at 0, in the parameter's type and on its device.

    Yields:
        A function that moves them to a position from 0 (``start``) to 1 (their own values) and returns the latter.
    """
    parameters = dict(model.named_parameters())
    end = {name: parameters[name].detach().clone() for name in start}

    @torch.no_grad()
    def put(position: float) -> Mapping[str, Tensor]:
        for name, value in start.items():
            torch.lerp(value, end[name], position, out=parameters[name].detach())
        return end

    try:
        yield put
    finally:
        with torch.no_grad():
            for name, value in end.items():
                parameters[name].copy_(value)

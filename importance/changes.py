"""How the weight matrices of two models differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .sites import Site, find_sites
from .state import unwrap
from .weights import base_module, effective_weight, is_lora, is_transposed


class Changes(Mapping[str, Tensor]):
    """Parameter name -> change (O, I) in float32 on the CPU, formed when asked for.

    An adapter's part is taken from the adapter itself: as a difference of two float32 weights most of its digits would
    be lost.

    Args:
        base: The model before.
        tuned: The model after; LoRA adapters may still be on it.
        include: As of the snapshot that the changes are set against.

    Raises:
        ValueError: If a matrix of the tuned model is missing in the base, or has another shape.
    """

    def __init__(self, base: nn.Module, tuned: nn.Module, include: Collection[str] = ()) -> None:
        before = {site.name: site for site in find_sites(unwrap(base), include).sites}
        self._pairs: dict[str, tuple[Site, Site]] = {}
        for site in find_sites(unwrap(tuned), include).sites:
            if site.name not in before or before[site.name].shape != site.shape:
                raise ValueError(f"importance: the base model has no {site.name} of shape {site.shape}")
            self._pairs[site.name] = before[site.name], site

    def __getitem__(self, name: str) -> Tensor:
        """The change of one matrix."""
        before, after = self._pairs[name]
        if after.parameter is not None or isinstance(after.module, nn.Embedding):
            return after.weight().float().cpu() - before.weight().float().cpu()
        stored = effective_weight(base_module(after.module)).float().cpu() - before.weight().float().cpu()
        adapter = _adapter(after.module)
        return stored if adapter is None else stored + adapter.float().cpu()

    def __iter__(self) -> Iterator[str]:
        """Names of the matrices."""
        return iter(self._pairs)

    def __len__(self) -> int:
        """Number of matrices."""
        return len(self._pairs)

    def ranks(self) -> dict[str, int]:
        """Parameter name -> rank of its adapters, for the matrices that have one."""
        found = {name: _rank(after.module) for name, (_, after) in self._pairs.items()}
        return {name: rank for name, rank in found.items() if rank}


def _active(module: nn.Module) -> list[str]:
    """Names of the adapters that act."""
    adapter: Any = module
    if not is_lora(module) or adapter.disable_adapters or adapter.merged:
        return []
    return [name for name in adapter.active_adapters if name in adapter.lora_A]


@torch.no_grad()
def _adapter(module: nn.Module) -> Tensor | None:
    adapter: Any = module
    parts = [adapter.get_delta_weight(name).detach() for name in _active(module)]
    if not parts:
        return None
    total = torch.stack(parts).sum(0)
    return total.T if is_transposed(base_module(module)) else total


def _rank(module: nn.Module) -> int:
    adapter: Any = module
    return sum(int(adapter.lora_A[name].weight.shape[0]) for name in _active(module))

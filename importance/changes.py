"""How the weight matrices of two models differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .site_table import Site
from .sites import find_sites
from .state import unwrap
from .weights import adapter_part, base_module, effective_weight, is_lora, is_transposed


@dataclass(frozen=True)
class MatrixChange:
    """How far one matrix moved.

    Attributes:
        name: Parameter name.
        layer: Decoder block, ``None`` outside.
        kind: ``q k v o gate up down`` or the path inside the block.
        norm: Frobenius norm of the change.
        base_norm: Frobenius norm of the matrix before.
        rank: Of the adapters that made the change; ``None`` without.
    """

    name: str
    layer: int | None
    kind: str
    norm: float
    base_norm: float
    rank: int | None = None


class Changes(Mapping[str, Tensor]):
    """Parameter name -> change (O, I) in float32 on the CPU, formed when asked for.

    An adapter's part is taken from the adapter itself: the difference of two float32 weights would lose most of its
    digits. (DoRA is an exception: it rescales the rows of the whole weight.)

    Args:
        base: The model before.
        tuned: The model after; LoRA adapters may still be on it.
        include: As for the snapshot that the changes are compared with.
        switched_off_too: Also count adapters that are switched off: a gate enables them for speech only.
        before_each: Called before a change is formed; what it raises ends the measurement.

    Raises:
        ValueError: If a matrix of the tuned model is missing in the base, or differs in shape.
    """

    def __init__(
        self,
        base: nn.Module,
        tuned: nn.Module,
        include: Collection[str] = (),
        switched_off_too: bool = False,
        before_each: Callable[[], None] | None = None,
    ) -> None:
        self._before_each = before_each
        self._switched_off_too = switched_off_too
        before = {site.name: site for site in find_sites(unwrap(base), include).sites}
        self._pairs: dict[str, tuple[Site, Site]] = {}
        for site in find_sites(unwrap(tuned), include).sites:
            if site.name not in before or before[site.name].shape != site.shape:
                raise ValueError(f"importance: the base model has no {site.name} of shape {site.shape}")
            self._pairs[site.name] = before[site.name], site

    def __getitem__(self, name: str) -> Tensor:
        """Forms the change of one matrix."""
        if self._before_each is not None:
            self._before_each()
        before, after = self._pairs[name]
        if after.parameter is not None or isinstance(after.module, nn.Embedding):
            return _difference(after.weight(), before.weight())
        if _rescales(after.module):
            return _difference(effective_weight(after.module, self._switched_off_too), before.weight())
        stored = _difference(effective_weight(base_module(after.module)), before.weight())
        adapter = _adapter(after.module, self._switched_off_too)
        return stored if adapter is None else stored + adapter.float().cpu()

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the matrices."""
        return iter(self._pairs)

    def __len__(self) -> int:
        """Counts the matrices."""
        return len(self._pairs)

    def ranks(self) -> dict[str, int]:
        """Maps the matrices that have adapters to the rank of these."""
        found = {name: _rank(after.module, self._switched_off_too) for name, (_, after) in self._pairs.items()}
        return {name: rank for name, rank in found.items() if rank}

    def norms(self) -> list[MatrixChange]:
        """Measures how far each matrix moved, forming one at a time."""
        ranks = self.ranks()
        found = []
        for name, (before, after) in self._pairs.items():
            size, start = (float(part.double().norm()) for part in (self[name], before.weight().cpu()))
            found.append(MatrixChange(name, after.layer, after.kind, size, start, ranks.get(name)))
        return found


def _difference(after: Tensor, before: Tensor) -> Tensor:
    """Forms a difference in the weights' type or in float32, whichever is wider; float32 on the CPU."""
    dtype = torch.promote_types(after.dtype, torch.float32)
    return (after.cpu().to(dtype) - before.cpu().to(dtype)).float()


def _active(module: nn.Module, switched_off_too: bool) -> list[str]:
    """Returns the names of the active adapters."""
    adapter: Any = module
    if not is_lora(module) or (adapter.disable_adapters and not switched_off_too) or adapter.merged:
        return []
    return [name for name in adapter.active_adapters if name in adapter.lora_A]


def _rescales(module: nn.Module) -> bool:
    """Returns whether the adapters have learned the lengths of the weight's rows (DoRA)."""
    adapter: Any = module
    return is_lora(module) and len(adapter.lora_magnitude_vector) > 0


@torch.no_grad()
def _adapter(module: nn.Module, switched_off_too: bool) -> Tensor | None:
    adapter: Any = module
    parts = [adapter_part(adapter, name) for name in _active(module, switched_off_too)]
    if not parts:
        return None
    total = torch.stack(parts).sum(0)
    return total.T if is_transposed(base_module(module)) else total


def _rank(module: nn.Module, switched_off_too: bool) -> int:
    adapter: Any = module
    return sum(int(adapter.lora_A[name].weight.shape[0]) for name in _active(module, switched_off_too))

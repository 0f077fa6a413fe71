"""One forward pass of two examples without gradients: how does the model use each weight?

Modules are found by structure, but only a forward pass tells whether a module is called at all (its weight may be used
directly), how often (blocks may share it), on what, and whether its output is overwritten afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .losses import AnswerLoss
from .site_table import Site, SiteTable
from .weights import is_lora, is_transposed

ROWS = 2
MISSING = "not called in a forward pass: its weight is used directly, or not at all"
COMPILED = "compiled or skipped blocks cannot be measured: pass the uncompiled model"


@dataclass
class Use:
    """What a forward pass does with a site.

    Attributes:
        calls: Calls of its modules.
        lookups: Calls of the embedding that shares its weight.
        overwritten: Whether the receiver changes an output in place.
        reason: Why it cannot be scored per example; ``None`` if it can.
    """

    calls: int = 0
    lookups: int = 0
    overwritten: bool = False
    reason: str | None = None


def usable(table: SiteTable, uses: Sequence[Use]) -> tuple[SiteTable, list[Use]]:
    """Drops the sites that cannot be scored, and returns the uses of those that remain.

    Raises:
        RuntimeError: If a decoder block has matrices and none is left: its layer's share would be wrong.
    """
    reasons = {index: use.reason for index, use in enumerate(uses) if use.reason is not None}
    kept = table.without(reasons)
    left = {site.layer for site in kept.sites}
    for index, reason in reasons.items():
        site = table.sites[index]
        if site.layer not in left and site.layer is not None:
            hint = f"; {COMPILED}" if reason == MISSING else ""
            raise RuntimeError(
                f"importance: no weight of decoder block {site.layer} can be scored ({site.name}: {reason}){hint}"
            )
    return kept, [use for index, use in enumerate(uses) if index not in reasons]


@torch.no_grad()
def rehearse(sites: Sequence[Site], loss: AnswerLoss, batch: Mapping[str, Any]) -> list[Use]:
    """Runs the first two examples of a batch and inspects every site.

    Args:
        sites: Of the model.
        loss: Its forward pass.
        batch: As for ``probe``, on the model's device.
    """
    few = {k: v[:ROWS] if isinstance(v, Tensor) else v for k, v in batch.items()}
    watch = _Watch(sites, *few["labels"].shape)
    handles = []
    try:
        for index, site in enumerate(sites):
            for module in (site.module, *site.shared):
                handles.append(module.register_forward_hook(watch.call(index), with_kwargs=True))
            if site.tied is not None:
                handles.append(site.tied.register_forward_hook(watch.call(index, lookup=True), with_kwargs=True))
        _, targets = loss.forward(few)
    finally:
        for handle in handles:
            handle.remove()
    return watch.uses(targets.shape[1])


class _Watch:
    """Notes on all calls of one forward pass."""

    def __init__(self, sites: Sequence[Site], rows: int, length: int) -> None:
        self._sites, self._rows, self._length = sites, rows, length
        self._uses = [Use() for _ in sites]
        self._outputs: list[tuple[int, Tensor, int]] = []  # site, output, and its version right after the call
        self._flat: list[tuple[int, int]] = []  # site and number of rows of an input without a dimension for examples

    def call(self, index: int, lookup: bool = False) -> Any:
        """Makes the hook of a site's module, or of the embedding that shares its weight."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            use = self._uses[index]
            use.lookups += lookup
            use.calls += not lookup
            use.reason = use.reason or self._reason(index, module, args, kwargs, output)
            if isinstance(output, Tensor):
                self._outputs.append((index, output, output._version))

        return hook

    def uses(self, kept: int) -> list[Use]:
        """Returns the notes, once the pass is over.

        Args:
            kept: Positions whose logits were computed.
        """
        for index, output, version in self._outputs:
            self._uses[index].overwritten |= output._version != version
        whole = {self._rows * self._length, self._rows * kept}
        for index, count in self._flat:
            vector = self._sites[index].parameter is not None  # a per-head norm sees several rows per position
            if count not in whole and not (vector and count % (self._rows * self._length) == 0):
                self._uses[index].reason = "called on a part of the positions"
        for site, use in zip(self._sites, self._uses, strict=True):
            if not use.calls or (site.tied is not None and not use.lookups):
                use.reason = use.reason or MISSING
            elif (site.tied is not None or isinstance(site.module, nn.Embedding)) and max(use.calls, use.lookups) > 1:
                use.reason = use.reason or "an embedding or head that is used several times"
        return self._uses

    def _reason(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> str | None:
        """Says why a call cannot be scored, as far as that is known immediately."""
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            return "takes or returns more than one tensor"
        a, rows = args[0], self._rows
        if isinstance(module, nn.Embedding):
            return None if a.dim() == 2 and a.shape[0] == rows else "looked up by something other than (examples, ids)"
        if self._sites[index].parameter is not None and (len(args) > 1 or kwargs):
            return "takes or returns more than one tensor"
        if a.dim() < 3:
            self._flat.append((index, a.shape[0]))
        elif a.shape[0] != rows:
            return f"its input {tuple(a.shape)} does not have the {rows} examples first"
        return None if self._sites[index].parameter is not None else _own_formula(module, a, output)


def _own_formula(module: nn.Module, a: Tensor, output: Tensor) -> str | None:
    """Says whether a subclass or patch of ``nn.Linear`` computes something else than the product."""
    plain = getattr(module.forward, "__func__", None) is nn.Linear.forward
    if plain or is_lora(module) or is_transposed(module):
        return None
    assert isinstance(module.weight, Tensor)
    bias = module.bias if isinstance(module.bias, Tensor) else None
    expected = F.linear(a, module.weight, bias)
    if expected.shape == output.shape and torch.allclose(expected, output, rtol=1e-3, atol=1e-5):
        return None
    return f"{type(module).__name__} does not compute the product with its weight"

"""What training changed in an LLM, and models between before and after, with part of the change undone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from .lora_layers import lora_layers


class Change(Protocol):
    """The change that training made in an LLM, which can be partly undone."""

    @property
    def names(self) -> list[str]:
        """Parameters that training moved, by their names in the untouched LLM."""

    def apply(self, alpha: float = 1.0, reverted: Collection[str] = ()) -> None:
        """Sets the LLM's weights to ``(1 - alpha) base + alpha tuned``, and some of them to the base ones.

        Args:
            alpha: 0 gives the untouched LLM and 1 the tuned one, both bit for bit; values outside [0, 1] extrapolate.
            reverted: Names of parameters to revert regardless of ``alpha``.

        Raises:
            ValueError: If a name is not among :attr:`names`.
        """


class DenseChange:
    """The change of plain weights (WiSE-FT, arXiv 2109.01903, eq. 1; LM-Cocktail, arXiv 2311.13534).

    Args:
        llm: The tuned LLM, without LoRA layers; its weights are set by :meth:`apply`.
        base: Parameter name -> value in the untouched one.

    Raises:
        ValueError: If the two do not have the same parameters.
    """

    def __init__(self, llm: nn.Module, base: Mapping[str, Tensor]) -> None:
        before, after = base, dict(llm.named_parameters())
        shapes = [{name: tuple(p.shape) for name, p in found.items()} for found in (before, after)]
        if shapes[0] != shapes[1]:
            odd = next(n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n))
            raise ValueError(
                f"edits: '{odd}' is {shapes[0].get(odd)} in the untouched LLM and {shapes[1].get(odd)} in the tuned one"
            )
        self._parameters = {n: p for n, p in after.items() if not torch.equal(p, before[n].to(p))}
        self._base = {n: before[n].detach().to(p) for n, p in self._parameters.items()}
        self._tuned = {n: p.detach().clone() for n, p in self._parameters.items()}

    @property
    def names(self) -> list[str]:
        """Names of the matrices that changed."""
        return list(self._parameters)

    @torch.no_grad()
    def apply(self, alpha: float = 1.0, reverted: Collection[str] = ()) -> None:
        """Sets the weights to this share of the change, except for the reverted matrices."""
        _check(reverted, self.names)
        for name, parameter in self._parameters.items():
            # lerp is exact at both ends: it starts from the nearer one.
            share = 0.0 if name in reverted else alpha
            parameter.copy_(torch.lerp(self._base[name], self._tuned[name], share))


class LoRAChange:
    """The change of LoRA that cannot be merged (a gated one acts on some positions only): its scale.

    Args:
        llm: The LLM with its LoRA layers.
    """

    def __init__(self, llm: nn.Module) -> None:
        self._layers = {f"{name}.weight": layer for name, layer in lora_layers(llm).items()}
        self._scales = {name: dict(layer.scaling) for name, layer in self._layers.items()}

    @property
    def names(self) -> list[str]:
        """Names of the matrices that changed."""
        return list(self._layers)

    def apply(self, alpha: float = 1.0, reverted: Collection[str] = ()) -> None:
        """Sets the weights to this share of the change, except for the reverted matrices."""
        _check(reverted, self.names)
        for name, layer in self._layers.items():
            for adapter, scale in self._scales[name].items():
                layer.scaling[adapter] = scale * (0.0 if name in reverted else alpha)


class AdapterChange:
    """The change of LoRA inside its own weights, which can be saved and trained further: B is scaled.

    What LoRA adds to a weight is linear in B, even if B A started as a part of the weight that a second pair of
    matrices subtracts again: that pair is scaled alike. This does not hold for DoRA, which learns lengths as well.

    Args:
        llm: The LLM with its LoRA layers.
    """

    def __init__(self, llm: nn.Module) -> None:
        layers = lora_layers(llm)
        self._tuned = {
            f"{name}.{adapter}": (module.weight, module.weight.detach().clone())
            for name, layer in layers.items()
            for adapter, module in layer.lora_B.items()
        }
        self._names = {key: f"{key.rpartition('.')[0]}.weight" for key in self._tuned}

    @property
    def names(self) -> list[str]:
        """Names of the matrices that changed."""
        return list(dict.fromkeys(self._names.values()))

    @torch.no_grad()
    def apply(self, alpha: float = 1.0, reverted: Collection[str] = ()) -> None:
        """Sets B to this share of what was learned, and to zero in the reverted matrices."""
        _check(reverted, self.names)
        for key, (weight, tuned) in self._tuned.items():
            weight.copy_(tuned * (0.0 if self._names[key] in reverted else alpha))


def _check(reverted: Collection[str], names: Collection[str]) -> None:
    unknown = sorted(set(reverted) - set(names))
    if unknown:
        raise ValueError(f"edits: training did not move '{unknown[0]}' ({len(unknown)} such names)")

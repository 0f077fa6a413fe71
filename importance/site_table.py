"""The weights of a model that are scored, and those that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from .weights import base_module, effective_weight, whole


@dataclass(frozen=True, eq=False)
class Site:
    """One weight that is scored.

    Attributes:
        name: Name of the parameter in the unwrapped model, such as ``model.layers.3.mlp.up_proj.weight``.
        module: The module whose input and output are tapped (the LoRA wrapper where there is one).
        kind: ``q k v o gate up down`` where recognised, else the path inside the decoder block.
        layer: Index of the decoder block, ``None`` outside the blocks.
        shape: (out, in) of a matrix; (1, n) of a vector.
        head_dim: Size of an attention head where the matrix belongs to attention.
        parameter: For a norm: the name of the parameter inside ``module``; ``None`` for matrices.
        tied: For an output head that shares its weight: the embedding module.
        shared: Further modules that use the same weight, in this block or others.
    """

    name: str
    module: nn.Module
    kind: str
    layer: int | None
    shape: tuple[int, int]
    head_dim: int | None = None
    parameter: str | None = None
    tied: nn.Embedding | None = None
    shared: tuple[nn.Module, ...] = ()

    @property
    def size(self) -> int:
        """Number of single weights."""
        return self.shape[0] * self.shape[1]

    @property
    def stored(self) -> Tensor:
        """The parameter as the model holds it: the base weight under LoRA, a shard under FSDP."""
        if self.parameter is not None:
            return getattr(self.module, self.parameter)
        weight = base_module(self.module).weight
        assert isinstance(weight, Tensor)
        return weight

    def weight(self) -> Tensor:
        """Returns the detached effective weight, of ``shape``; under FSDP it is gathered, so all ranks must call it."""
        if self.parameter is not None:
            return whole(getattr(self.module, self.parameter).detach()).reshape(self.shape)
        if isinstance(self.module, nn.Embedding):
            return whole(self.module.weight.detach())
        return effective_weight(self.module)


@dataclass
class SiteTable:
    """The sites of a model, and what is left out.

    Attributes:
        sites: In the order of the module tree, that is by depth; a weight that several modules share is one site.
        untapped: Parameter name -> reason, for weights of the decoder that are not scored.
        parameters: Number of parameters of the decoder: those of its blocks, the matrices of other lists of blocks,
            and the chosen extras.
        layers: Number of decoder blocks.
        blocks: The module list of decoder blocks.
    """

    sites: list[Site] = field(default_factory=list)
    untapped: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    layers: int = 0
    blocks: nn.ModuleList = field(default_factory=nn.ModuleList)

    @property
    def coverage(self) -> float:
        """Scored parameters over :attr:`parameters`."""
        return sum(site.size for site in self.sites) / max(self.parameters, 1)

    def without(self, reasons: Mapping[int, str]) -> SiteTable:
        """Returns the table without some sites (by index), with the reasons."""
        kept = [site for index, site in enumerate(self.sites) if index not in reasons]
        left_out = {self.sites[index].name: reason for index, reason in reasons.items()}
        return replace(self, sites=kept, untapped={**self.untapped, **left_out})

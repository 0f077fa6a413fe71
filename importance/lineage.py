"""Whether one model descends from another: how far the weights of the same matrices point in the same direction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .sites import find_sites
from .state import unwrap

PARENT = 0.9
"""From this cosine on, a matrix counts as the other one after further training."""
SIGMAS = 4.0
"""Within this many deviations of chance, a matrix counts as unrelated: 6 in 100,000 independent ones would not."""
PIECE = 1 << 22
"""Weights converted to float64 at a time."""


@dataclass(frozen=True)
class Kinship:
    """How two matrices are related.

    Attributes:
        cosine: ``<A, B> / (|A| |B|)`` over all single weights.
        chance: Standard deviation of that cosine if the two were independent, with mean 0: the sizes of the weights as
            they are and each sign by a coin, ``sqrt(sum a^2 b^2) / (|A| |B|)``. For independent initialisations with n
            weights of one distribution it is ``1 / sqrt(n)``; columns that are large in both make it larger.
        change: ``|B - A| / |A|``.
    """

    cosine: float
    chance: float
    change: float

    @property
    def verdict(self) -> str:
        """Returns ``parent``, ``relative`` or ``unrelated``."""
        if self.cosine >= PARENT:
            return "parent"
        return "relative" if abs(self.cosine) > SIGMAS * self.chance else "unrelated"


@dataclass(frozen=True)
class Lineage:
    """How a model's decoder is related to another's.

    Attributes:
        whole: Over the weights of all matrices together.
        layers: Label of each decoder block -> over its matrices.
        matrices: Name -> of each one.
    """

    whole: Kinship
    layers: dict[str, Kinship]
    matrices: dict[str, Kinship]

    @property
    def verdict(self) -> str:
        """Returns the verdict on the whole: ``parent``, ``relative`` or ``unrelated``."""
        return self.whole.verdict

    @property
    def counts(self) -> dict[str, int]:
        """Counts the matrices by verdict, and those that are equal bit for bit."""
        found = [kinship.verdict for kinship in self.matrices.values()]
        counted = {verdict: found.count(verdict) for verdict in ("parent", "relative", "unrelated")}
        return {**counted, "equal": sum(kinship.change == 0 for kinship in self.matrices.values())}

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        told = {name: {**asdict(found), "verdict": found.verdict} for name, found in self.matrices.items()}
        layers = {label: asdict(found) for label, found in self.layers.items()}
        return {
            "verdict": self.verdict,
            **asdict(self.whole),
            "counts": self.counts,
            "layers": layers,
            "matrices": told,
        }


def lineage(base: nn.Module, model: nn.Module) -> Lineage:
    """Compares the matrices of two decoders, name by name; for LoRA, their effective weights.

    Args:
        base: The model that may be the parent.
        model: The one that may descend from it.

    Raises:
        ValueError: If they do not have the same matrices: another architecture or another size has no lineage here.
    """
    before = {site.name: site for site in find_sites(unwrap(base)).sites}
    after = {site.name: site for site in find_sites(unwrap(model)).sites}
    for name in {**before, **after}:
        shapes = [str(found[name].shape) if name in found else "no such matrix" for found in (before, after)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"importance: no lineage, the two are of other architectures or sizes: {name} is {shapes[0]} in the "
                f"first and {shapes[1]} in the second"
            )
    sums = {name: _sums(site.weight(), after[name].weight()) for name, site in before.items()}
    layers: dict[str, list[Tensor]] = {}
    for name, site in before.items():
        layers.setdefault(f"{site.layer:02d}", []).append(sums[name])
    return Lineage(
        _kinship(sums.values()),
        {label: _kinship(parts) for label, parts in layers.items()},
        {name: _kinship([part]) for name, part in sums.items()},
    )


@torch.no_grad()
def _sums(first: Tensor, second: Tensor) -> Tensor:
    """Returns the sums of a b, a^2, b^2, a^2 b^2 and (b - a)^2 over two matrices, (5,) in float64."""
    total = torch.zeros(5, dtype=torch.float64)
    for left, right in zip(first.flatten().split(PIECE), second.flatten().split(PIECE), strict=True):
        a, b = left.cpu().double(), right.cpu().double()
        parts = (a * b, a * a, b * b, (a * b) ** 2, (b - a) ** 2)
        total += torch.stack([part.sum() for part in parts])
    return total


def _kinship(parts: Iterable[Tensor]) -> Kinship:
    product, first, second, squares, moved = torch.stack(list(parts)).sum(0).tolist()
    norms = math.sqrt(first * second)
    change = math.sqrt(moved / first) if first else 0.0 if not moved else math.inf
    if norms == 0:  # a zero matrix has no direction
        return Kinship(0.0, 0.0, change)
    return Kinship(product / norms, math.sqrt(squares) / norms, change)

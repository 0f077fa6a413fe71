"""Row, column and head sums of a signed score: absolute values of each example's sums, summed over the examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from .kernels import Tally
from .site_table import Site
from .weights import bias_of

Side = Literal["rows", "columns"]


class SignedLines:
    """Collects the lines of ``W * G_i`` that pass by without a weight gradient.

    Args:
        sites: What is scored.
        tallies: Where the sums of each site go.
        several: Sites that a forward pass uses several times: their sums are added up before the absolute value is
            taken, so :meth:`flush` must follow each backward pass.
    """

    def __init__(self, sites: Sequence[Site], tallies: Sequence[Tally], several: Collection[int]) -> None:
        self.heads: dict[int, Tensor] = {}
        self._sites, self._tallies, self._several = sites, tallies, several
        self._sums: dict[tuple[int, Side], Tensor] = {}

    def add_output(self, index: int, y: Tensor, b: Tensor) -> None:
        """Takes the outputs (B, T, O) of a site and the gradients there: row sums are ``sum_t b_t (y_t - bias)``."""
        bias = bias_of(self._sites[index].module)
        self.add(index, "rows", (wide(b) * (wide(y) - bias if bias is not None else wide(y))).sum(1))

    def add(self, index: int, side: Side, sums: Tensor) -> None:
        """Receives signed row or column sums (B, n) of the examples."""
        if index in self._several:
            known = self._sums.get((index, side))
            self._sums[(index, side)] = sums if known is None else known + sums
        else:
            self._tally(index, side, sums)

    def flush(self) -> None:
        """Tallies the sites with several uses, once the sums of all uses are available."""
        for (index, side), sums in self._sums.items():
            self._tally(index, side, sums)
        self._sums = {}

    def complete(self, count: int) -> None:
        """Turns the head sums into means over ``count`` examples."""
        self.heads = {index: sums / count for index, sums in self.heads.items()}

    def head_sums(self, index: int) -> Tensor | None:
        """Returns the sums of a site's heads, zeros where no example was seen; ``None`` where none are kept."""
        site = self._sites[index]
        if not site.head_dim or self._tallies[index].rows is None:
            return None
        size = site.shape[1 if site.kind == "o" else 0] // site.head_dim
        empty = torch.zeros(size, dtype=torch.float64, device=site.stored.device)
        return self.heads.setdefault(index, empty)

    def _tally(self, index: int, side: Side, sums: Tensor) -> None:
        site, tally = self._sites[index], self._tallies[index]
        total = tally.rows if side == "rows" else tally.columns
        if total is None:
            return
        total += sums.abs().sum(0, dtype=torch.float64)
        if site.head_dim and site.kind in (("q", "k", "v") if side == "rows" else ("o",)):
            per_head = sums.unflatten(1, (-1, site.head_dim)).sum(2, dtype=torch.float64).abs().sum(0)
            self.heads[index] = self.heads[index] + per_head if index in self.heads else per_head


def wide(tensor: Tensor) -> Tensor:
    """Returns the tensor in at least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

"""Input norms of the dense layers, from forward passes alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .site_table import Site


class InputNorms:
    """Sums ``a^2`` over the content positions of all examples, per input feature (Sun et al. 2023, 2306.11695).

    Padding is left out (the original and llmcompressor count it). Recomputed forward passes of checkpointing are
    not counted: :meth:`collecting` is open in the first forward only.

    Args:
        sites: Dense sites.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        self.squares = [torch.zeros(s.shape[1], dtype=torch.float64, device=s.stored.device) for s in sites]
        self._mask: Tensor | None = None

    def mean(self, index: int, count: int) -> Tensor:
        """Returns ``(E_i |a_i|^2)^1/2`` of each input feature (I,) of a site, over ``count`` examples of all ranks."""
        return (self.squares[index] / count).sqrt()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Registers the hooks within the context."""
        handles = [
            module.register_forward_pre_hook(self._hook(i))
            for i, site in enumerate(self._sites)
            for module in (site.module, *site.shared)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def collecting(self, mask: Tensor) -> Iterator[None]:
        """Counts forward passes inside the context.

        Args:
            mask: Content positions (B, T).
        """
        self._mask = mask
        try:
            yield
        finally:
            self._mask = None

    def _hook(self, index: int) -> Any:
        def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            if self._mask is not None:
                a = args[0].detach().to(torch.promote_types(args[0].dtype, torch.float32))
                kept = a.reshape(-1, a.shape[-1])[self._mask.flatten().bool()]
                self.squares[index] += kept.square().sum(0, dtype=torch.float64)

        return hook

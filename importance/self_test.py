"""The self-test of a measurement: identities that cost nothing and, if they do not hold, autograd on one example.

An identity may fail because a tap is wrong, or because the architecture has something between the matrices that the
module tree does not show. The gradient of one example by autograd distinguishes the two.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.decoder import eval_mode
from ..foundation.ranks import Ranks, is_sharded
from .conservation import allowed_error, broken_identities, conservation_errors, equal_pairs
from .losses import AnswerLoss
from .site_table import Site, SiteTable
from .state import differentiable_embeddings, undisturbed


@dataclass
class SelfTest:
    """What is needed to check a measurement against the model itself.

    Attributes:
        model: The measured model, in the state it was measured in.
        loss: Its loss.
        table: The scored weights.
        batch: This rank's first batch; ``None`` if it had none.
        first: Signed scores (M,) of that batch's first example; ``None`` if there are none.
    """

    model: nn.Module
    loss: AnswerLoss
    table: SiteTable
    batch: Mapping[str, Any] | None = None
    first: np.ndarray | None = None

    def run(
        self, signed: np.ndarray, dtype: torch.dtype, ranks: Ranks
    ) -> tuple[dict[str, float], list[tuple[int, int]]]:
        """Checks the signed scores; every rank must call it.

        Args:
            signed: Of the examples of all ranks (N, M).
            dtype: Compute type of the pass.
            ranks: That took part.

        Returns:
            Errors of the identities that hold, and the pairs of sites that they tie.

        Raises:
            RuntimeError: If an identity is broken and the scores are not what autograd gives.
        """
        sites = self.table.sites
        pairs = equal_pairs(sites, self.table.blocks)
        errors = conservation_errors(signed, sites, pairs)
        broken = broken_identities(errors, dtype)
        if broken:
            self._explain(broken, _suspects(signed, sites, pairs, broken), dtype, ranks)
        return (
            {label: error for label, error in errors.items() if label not in broken},
            [pair for pair in pairs if _label(sites, pair) not in broken],
        )

    def _explain(self, broken: Mapping[str, float], suspects: Sequence[int], dtype: torch.dtype, ranks: Ranks) -> None:
        """Warns if autograd confirms the scores of the suspects, else raises."""
        detail = ", ".join(f"{label} off by {error:.2g}" for label, error in broken.items())
        here = None if self.batch is None or is_sharded(self.model) else self._error(suspects)
        found = [error for error in ranks.gather(here) if error is not None]
        if not found or not max(found) <= allowed_error(dtype):
            against = f"; against autograd on one example {max(found):.2g}" if found else ""
            raise RuntimeError(
                f"importance: self-test failed: {detail}{against} (allowed {allowed_error(dtype):g} in {dtype}): the "
                f"scores of {type(self.model).__name__} are not its gradients; self_test=False (--no-self-test) "
                "measures all the same"
            )
        warnings.warn(
            f"importance: {type(self.model).__name__} does not obey {detail}: these matrices count apart. Autograd on "
            "one example confirms their scores",
            stacklevel=2,
        )

    def _error(self, indices: Sequence[int]) -> float:
        """Measures the largest relative error of the first example's signed scores, against autograd."""
        assert self.batch is not None
        assert self.first is not None
        one = {k: v[:1] if isinstance(v, Tensor) else v for k, v in self.batch.items()}
        stored = [self.table.sites[index].stored for index in indices]
        flags = [parameter.requires_grad for parameter in stored]
        try:
            for parameter in stored:
                parameter.requires_grad_(True)
            # reentrant checkpointing would forbid autograd.grad, and that alone spares the hooks on ``.grad``
            with undisturbed(self.model), eval_mode(self.model), differentiable_embeddings(self.model):
                loss = self.loss.per_example(*self.loss.forward(one)).sum()
                gradients = torch.autograd.grad(loss, stored, allow_unused=True)
        finally:
            for parameter, flag in zip(stored, flags, strict=True):
                parameter.requires_grad_(flag)
        return max(
            _relative(self.table.sites[index], gradient, float(self.first[index]))
            for index, gradient in zip(indices, gradients, strict=True)
        )


def _relative(site: Site, gradient: Tensor | None, found: float) -> float:
    """Returns ``|found - <W, G>|`` over ``sum |W G|``."""
    if gradient is None:
        return 0.0 if found == 0 else float("inf")
    weight = site.weight()
    products = weight.double() * (gradient if gradient.shape == weight.shape else gradient.T).double()
    return abs(found - float(products.sum())) / max(float(products.abs().sum()), np.finfo(np.float64).tiny)


def _label(sites: Sequence[Site], pair: tuple[int, int]) -> str:
    return f"{sites[pair[0]].kind}={sites[pair[1]].kind}"


def _suspects(
    signed: np.ndarray, sites: Sequence[Site], pairs: Sequence[tuple[int, int]], broken: Mapping[str, float]
) -> list[int]:
    """Picks the two matrices of each broken identity that differ most."""

    def difference(pair: tuple[int, int]) -> float:
        return float(np.abs(signed[:, pair[0]] - signed[:, pair[1]]).mean())

    found: list[int] = []
    for label in broken:
        members = [pair for pair in pairs if _label(sites, pair) == label]
        worst = max(members, key=difference)
        found += worst
    return found

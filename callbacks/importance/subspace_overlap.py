"""Follows how much of what is learned goes into the directions in which the weights are strongest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from ...importance.sites import find_sites
from ...importance.subspace import interference, top_subspace
from ...importance.weights import base_module, effective_weight, is_lora, is_transposed
from ..stopping.give_way import taking_turns


class SubspaceOverlap(Callback):
    r"""Logs OPLoRA's rho_k (arXiv 2510.13003) at each validation, whatever is trained.

    :math:`\rho_k = \|U_k U_k^T \Delta W\|_F^2 / \|\Delta W\|_F^2`, the part of a weight's change that lies in its first
    k left singular directions. ``subspace/rho_k`` is the mean over the matrices of the decoder layers that are changed,
    ``subspace/rho_k_random`` what random changes would have (k / out). 0 under ``OPLoRA`` with the same k.

    Args:
        k: Directions that count.

    Note:
        The directions are found at the first validation (an eigenvalue decomposition a matrix). Without adapters it
        needs a copy of the untouched LLM. Under DDP rank zero does all of it; a stop (Ctrl-C, SIGTERM) comes between
        two matrices.
    """

    def __init__(self, k: int = 16) -> None:
        if k < 1:
            raise ValueError(f"SubspaceOverlap.k: a positive number is allowed, got {k}")
        self.k = k
        self._left: dict[str, Tensor] = {}
        self._base: dict[str, Tensor] = {}

    def needs_whole(self) -> str | None:
        """Names itself: rank zero alone reads the weights."""
        return type(self).__name__

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        with taking_turns(trainer) as give_way:
            values = self.measure(pl_module, give_way) if trainer.is_global_zero else {}
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        rank_zero_info(
            f"rho_{self.k} at step {trainer.global_step}: {values['subspace/rho_k']:.3g} "
            f"(random {values['subspace/rho_k_random']:.3g})"
        )

    @torch.no_grad()
    def measure(self, pl_module: LightningModule, give_way: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Measures the two figures of the model as it is.

        Args:
            pl_module: Offers ``llm``, ``tuning`` and ``reference``.
            give_way: Called before each matrix; what it raises ends the measurement.

        Raises:
            ValueError: If no matrix is larger than k.
        """
        llm: Any = pl_module.llm
        sites = [site for site in find_sites(llm).sites if self.k < min(site.shape)]
        if not sites:
            raise ValueError(f"SubspaceOverlap: no matrix of the decoder layers has more than {self.k} directions")
        adapted = any(is_lora(site.module) for site in sites)
        if not adapted and not self._base:
            listener: Any = pl_module
            self._base = dict(listener.tuning.grow(listener.reference.copy()).named_parameters())
        rho = []
        for site in sites:
            give_way()
            if is_lora(site.module):
                before = site.stored.detach()
            elif adapted:
                continue  # not adapted, not changed
            else:
                before = self._base[site.name].detach()
            before = before.T if is_transposed(base_module(site.module)) else before
            left = self._directions(site.name, site.module, before)
            after = effective_weight(site.module, switched_off_too=True)
            after = after.to(torch.promote_types(after.dtype, torch.float32))  # half precision rounds the difference
            rho.append(interference(after - before, left))
        random = sum(self.k / site.shape[0] for site in sites) / len(sites)
        return {"subspace/rho_k": sum(rho) / len(rho), "subspace/rho_k_random": random}

    def _directions(self, name: str, module: Any, before: Tensor) -> Tensor:
        """Returns U_k of the untouched weight; OPLoRA's where it is the same."""
        known = getattr(module, "protected_left", None)
        if isinstance(known, Tensor) and known.shape[1] == self.k:
            return known
        if name not in self._left:
            self._left[name] = top_subspace(before, self.k)[0]
        return self._left[name]

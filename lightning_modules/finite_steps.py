"""No optimizer step on a loss or a gradient that is infinite or not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..foundation.errors import RunError
from ..foundation.ranks import Ranks
from ..foundation.run_names import SKIPPED_STEPS
from ..foundation.sharding import own_part, whole_of

OnNonfinite = Literal["stop", "skip_step"]

GIVE_UP = 10
"""A run that skips non-finite steps ends after this many in a row: its weights are no longer worth training."""
SHOWN = 24


class SkippedStep(Exception):  # noqa: N818 - no error
    """Raised to end an optimizer step before the optimizer has seen it."""


class FiniteSteps:
    """Accepts an optimizer step, or refuses it before any weight, moment or counter of the optimizer has changed.

    All ranks decide alike, once per step, when the gradients are complete: after accumulation, normalisation and
    penalties, using the norm that clipping needs anyway.

    Args:
        on_nonfinite: ``stop`` ends the run, naming the step, its examples and what was not finite; ``skip_step``
            continues without the step, at most :data:`GIVE_UP` times in a row.

    Attributes:
        skipped: Number of steps skipped so far; saved in checkpoints.
    """

    def __init__(self, on_nonfinite: OnNonfinite) -> None:
        self.skips = on_nonfinite == "skip_step"
        self.skipped = 0
        self._in_a_row = 0
        self._window: list[tuple[Sequence[str], Tensor]] = []

    @property
    def in_doubt(self) -> bool:
        """Whether more than one step in a row was skipped: the weights before them may be the cause."""
        return self.skips and self._in_a_row > 1

    def note(self, ids: Sequence[str], loss: Tensor) -> None:
        """Records a batch of the coming step: its examples and its loss (scalar)."""
        self._window.append((ids, loss.detach()))

    def clip(
        self, module: LightningModule, optimizer: torch.optim.Optimizer, largest: float | None, algorithm: str | None
    ) -> None:
        """Clips the gradients as the Trainer is configured to, once they are known to be finite.

        Args:
            module: In training, with the gradients that the optimizer is to use.
            optimizer: Its optimizer.
            largest: ``Trainer.gradient_clip_val``.
            algorithm: ``Trainer.gradient_clip_algorithm``.

        Raises:
            SkippedStep: If the step is not to be taken.
            RunError: If the run is to end; on all ranks.
        """
        precision: Any = module.trainer.precision_plugin
        if getattr(precision, "scaler", None) is not None:
            self._accept(module, None)
            module.clip_gradients(optimizer, largest, algorithm)
            return
        parameters = list(precision.main_params(optimizer))
        norm = whole_of(get_total_norm([p.grad for p in parameters if p.grad is not None]))
        accepted = self._accept(module, norm)
        if self.skips:
            module.log(SKIPPED_STEPS, float(self.skipped))
        if not accepted:
            raise SkippedStep
        if not largest or algorithm not in (None, "norm"):
            module.clip_gradients(optimizer, largest, algorithm)
        elif float(largest / (norm + 1e-6)) < 1:  # otherwise clip_grads_with_norm_() would multiply all gradients by 1
            clip_grads_with_norm_(parameters, largest, norm)  # like clip_grad_norm_(), which would compute it again

    def _accept(self, module: LightningModule, norm: Tensor | None) -> bool:
        """Returns whether the step may be taken.

        Args:
            module: In training, with gradients.
            norm: Norm of all gradients (scalar); None under a loss scale (``16-mixed``), which itself skips overflowing
                steps. Then only losses count, and only if they are not finite for :data:`GIVE_UP` steps.

        Returns:
            False to skip it.

        Raises:
            RunError: If the run is to end; on all ranks.
        """
        window, self._window = self._window, []
        total = sum((loss for _, loss in window), torch.zeros(()) if norm is None else norm)
        finite = bool(torch.isfinite(total))  # synchronises with the device once
        if module.trainer.strategy.reduce_boolean_decision(finite):
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        patient = self.skips or norm is None
        told = f"optimizer step {module.trainer.global_step + 1}: {_told(module, window)}"
        if not patient or self._in_a_row >= GIVE_UP:
            often = f", as in the {GIVE_UP - 1} steps before it" if patient else ""
            ways = "a lower rate" if patient else "a lower rate, or model.on_nonfinite: skip_step"
            raise RunError(f"{told}{often}; it is not taken, the last checkpoint is kept; allowed: {ways}")
        if norm is None:
            return True
        self.skipped += 1
        rank_zero_warn(f"{told}; skipped ({self.skipped} so far)")
        return False

    def state(self) -> dict[str, int]:
        """Returns its state for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def restore(self, state: Mapping[str, int]) -> None:
        """Restores its state from a checkpoint; older ones have none."""
        self.skipped, self._in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)


def _told(module: LightningModule, window: Sequence[tuple[Sequence[str], Tensor]]) -> str:
    """Describes what is not finite on any rank; every rank must call it."""
    own = [(list(ids), float(loss)) for ids, loss in window]
    gathered: list[Any] = Ranks().gather((own, _gradient(module)))
    batches = [batch for of_rank, _ in gathered for batch in of_rank]
    bad = next(((ids, loss) for ids, loss in batches if not math.isfinite(loss)), None)
    ids = [name for of_batch, _ in batches for name in of_batch]
    if bad is not None:
        return f"the loss of {_listed(bad[0])} is {bad[1]} (examples of the step: {_listed(ids)})"
    gradient = next((text for _, text in gathered if text), "the norm of the gradients is too large")
    return f"{gradient} (examples of the step: {_listed(ids)})"


def _gradient(module: LightningModule) -> str:
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            continue
        gradient = own_part(parameter.grad)
        if bad := int((~torch.isfinite(gradient)).sum()):
            return f"the gradient of {name} is not finite in {bad} of {gradient.numel()} places"
    return ""


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more

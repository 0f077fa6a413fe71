"""One answer token weighs the same on every rank and in every accumulation step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class TokenNormalizer:
    """Turns gradients of summed losses into gradients of the global token mean, exactly.

    The usual mean of means (a batch's mean, averaged over accumulation steps and ranks) weighs a token by how many
    others happen to stand in its batch (transformers#34191). The right divisor is known only when the last batch of
    the window has been seen, so: each step returns its sum over a constant, and the gradients are rescaled once, after
    they are unscaled and before they are clipped.
    """

    #: Keeps half-precision gradients in range until the true divisor is known; any constant gives the same result.
    CONSTANT = 256.0

    def __init__(self) -> None:
        self._tokens: Tensor | None = None

    def scaled(self, loss_sum: Tensor, tokens: Tensor, accumulate: int) -> Tensor:
        """Scales the loss to what a training step returns.

        Args:
            loss_sum: Summed loss of this batch.
            tokens: Number of tokens it is over.
            accumulate: Batches per optimizer step; Lightning divides the returned loss by it.
        """
        self._tokens = tokens.detach() if self._tokens is None else self._tokens + tokens.detach()
        return loss_sum * (accumulate / self.CONSTANT)

    def normalize(self, parameters: Iterable[torch.nn.Parameter], strategy: Any) -> None:
        """Rescales the gradients, which data parallelism has averaged over the ranks, and starts a new window."""
        if self._tokens is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        dtype = max((g.dtype for g in gradients), default=torch.float32, key=lambda dtype: torch.finfo(dtype).bits)
        tokens = self._tokens.to(torch.promote_types(dtype, torch.float32))
        total = strategy.reduce(tokens, reduce_op="sum")
        factor = self.CONSTANT * strategy.world_size / total.clamp(min=1)
        for gradient in gradients:
            gradient.mul_(factor)
        self._tokens = None

"""Gives every answer token the same weight on every rank and in every accumulation step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...foundation.sharding import own_part


class TokenNormalizer:
    """Turns gradients of summed losses into gradients of the global token mean, exactly.

    The usual mean of means (a batch's mean, averaged over accumulation steps and ranks) weights a token by how many
    others happen to be in its batch (transformers#34191). A step of one batch divides its loss by the tokens of all
    ranks before the backward pass, so gradients are not touched again. If batches are accumulated, the right divisor is
    known only after the last one, so each loss is its sum over a constant, and the gradients are rescaled once, after
    unscaling and before clipping.
    """

    #: Keeps half-precision gradients in range until the true divisor is known; any constant gives the same result.
    CONSTANT = 256.0

    def __init__(self) -> None:
        self._tokens: Tensor | None = None

    def scaled(self, loss_sum: Tensor, tokens: Tensor, accumulate: int, strategy: Any) -> Tensor:
        """Scales the loss for the training step to return; every rank must call it.

        Args:
            loss_sum: Summed loss of this batch.
            tokens: Number of tokens in the sum.
            accumulate: Batches per optimizer step; Lightning divides the returned loss by it.
            strategy: Of the Trainer; data parallelism will average the gradients over its ranks.
        """
        if accumulate == 1:
            return loss_sum * strategy.world_size / _over_ranks(tokens, loss_sum.dtype, strategy)
        self._tokens = tokens.detach() if self._tokens is None else self._tokens + tokens.detach()
        return loss_sum * (accumulate / self.CONSTANT)

    def normalize(self, parameters: Iterable[torch.nn.Parameter], strategy: Any) -> None:
        """Rescales the gradients of accumulated batches, which are averaged over the ranks; a new window begins."""
        if self._tokens is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        dtype = max((g.dtype for g in gradients), default=torch.float32, key=lambda dtype: torch.finfo(dtype).bits)
        factor = self.CONSTANT * strategy.world_size / _over_ranks(self._tokens, dtype, strategy)
        for gradient in gradients:
            own_part(gradient).mul_(factor)
        self._tokens = None


def _over_ranks(tokens: Tensor, dtype: torch.dtype, strategy: Any) -> Tensor:
    """Sums token counts over the ranks, at least 1; in this type, or float32 if it is narrower."""
    own = tokens.detach().to(torch.promote_types(dtype, torch.float32), copy=True)  # it may be summed in place
    return strategy.reduce(own, reduce_op="sum").clamp(min=1)

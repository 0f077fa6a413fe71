"""One answer token weighs the same on every rank and in every accumulation step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...foundation.sharding import own_part


class TokenNormalizer:
    """Turns gradients of summed losses into gradients of the global token mean, exactly.

    The usual mean of means (a batch's mean, averaged over accumulation steps and ranks) weighs a token by how many
    others happen to stand in its batch (transformers#34191). A step of one batch divides its loss by the tokens of all
    ranks before it goes backward: not a gradient is touched again. Where batches are accumulated, the right divisor is
    known only when the last one has been seen, so: each gives its sum over a constant, and the gradients are rescaled
    once, after they are unscaled and before they are clipped.
    """

    #: Keeps half-precision gradients in range until the true divisor is known; any constant gives the same result.
    CONSTANT = 256.0

    def __init__(self) -> None:
        self._tokens: Tensor | None = None

    def scaled(self, loss_sum: Tensor, tokens: Tensor, accumulate: int, strategy: Any) -> Tensor:
        """Scales the loss to what a training step returns; every rank must come here.

        Args:
            loss_sum: Summed loss of this batch.
            tokens: Number of tokens it is over.
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
    """Sums numbers of tokens over the ranks, 1 at least; in this type, or float32 if it is narrower."""
    own = tokens.detach().to(torch.promote_types(dtype, torch.float32), copy=True)  # it may be summed in place
    return strategy.reduce(own, reduce_op="sum").clamp(min=1)

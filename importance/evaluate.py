"""Losses without gradients, for the checks of importance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .losses import IGNORED, AnswerLoss
from .state import undisturbed

Batches = Iterable[Mapping[str, Any]]


@torch.no_grad()
def answer_losses(
    model: nn.Module, batches: Batches, autocast: torch.dtype | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Measures the mean loss (N,) in nats and counts the answer tokens (N,) of each example, in eval mode.

    Args:
        model: As for ``probe``.
        batches: As for ``probe``.
        autocast: Compute type.
    """
    loss = AnswerLoss(model, autocast)
    device = next(model.parameters()).device
    losses: list[float] = []
    tokens: list[int] = []
    with undisturbed(model), torch.no_grad():
        for batch in batches:
            moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            logits, targets = loss.forward(moved)
            losses += loss.per_example(logits, targets).double().tolist()
            tokens += (targets != IGNORED).sum(dim=1).tolist()
    return np.array(losses), np.array(tokens)


def perplexity(losses: np.ndarray, tokens: np.ndarray) -> float:
    """Returns the exponential of the mean loss per answer token."""
    return float(np.exp((losses * tokens).sum() / tokens.sum()))


def mean_interval(changes: np.ndarray, replicates: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Bootstraps a 90 % interval of the mean over examples."""
    drawn = np.random.default_rng(seed).integers(len(changes), size=(replicates, len(changes)))
    low, high = np.percentile(changes[drawn].mean(axis=1), [5.0, 95.0])
    return float(low), float(high)

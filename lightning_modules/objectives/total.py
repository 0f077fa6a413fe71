"""Several objectives as one loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..contract import Batch, SpeechModel
from .objective import Objective


class Total(NamedTuple):
    """What a training step asks in all.

    Attributes:
        loss: Weighted sum of the objectives' sums (scalar, with gradient).
        tokens: Number of tokens of the first objective, by which the step will be divided.
        means: Objective's name -> its mean per token, or a penalty's value, without gradient; and their figures.
    """

    loss: Tensor
    tokens: Tensor
    means: dict[str, Tensor]


def weighted_total(objectives: Sequence[Objective], model: SpeechModel, batch: Batch) -> Total:
    """Runs all objectives on a batch.

    A penalty counts once a step: it is multiplied with the tokens by which the step will be divided.
    """
    losses: list[Tensor] = []
    counts: list[Tensor] = []
    means: dict[str, Tensor] = {}
    for objective in objectives:
        loss, tokens = objective(model, batch)
        counts.append(tokens)
        losses.append(loss * objective.weight * (counts[0] if objective.penalty else 1))
        means[objective.name] = loss.detach() / tokens.clamp(min=1)
        means |= {f"{objective.name}_{key}": figure.float() for key, figure in objective.figures.items()}
    return Total(torch.stack(losses).sum(), counts[0], means)

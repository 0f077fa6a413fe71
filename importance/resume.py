"""Losses after a change in one decoder block, without running the blocks before it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..foundation.decoder import find_blocks
from .evaluate import answer_losses
from .replay import Replay


class ResumedLosses:
    """Losses of fixed batches, run from any block on, with the outputs of the earlier blocks kept.

    Testing a group of weights in block l costs the blocks from l on only, half a pass on average. Models for which that
    does not give the same losses bit for bit are run from the start.

    Args:
        model: The bare model, with the weights that the kept states belong to.
        batches: As for ``probe``.
        autocast: Compute type.

    Attributes:
        losses: (N,) of the model as it is.
        resumes: Whether blocks are skipped.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[Mapping[str, Any]], autocast: torch.dtype | None = None
    ) -> None:
        self._model, self._batches, self._autocast = model, batches, autocast
        self._replays: list[Replay] = []
        blocks = find_blocks(model)[1]
        losses = []
        for batch in batches:
            self._replays.append(Replay(blocks))
            with self._replays[-1].recording():
                losses.append(answer_losses(model, [batch], autocast)[0])
        self.losses = np.concatenate(losses)
        self.resumes = all(replay.complete for replay in self._replays)
        if self.resumes:
            self.resumes = bool((self.after_change(len(blocks) // 2) == self.losses).all())

    def after_change(self, layer: int | None) -> np.ndarray:
        """Measures the losses (N,) after a change in block ``layer`` (``None``: anywhere)."""
        if layer is None or not self.resumes:
            return answer_losses(self._model, self._batches, self._autocast)[0]
        losses = []
        for replay, batch in zip(self._replays, self._batches, strict=True):
            with replay.beginning_at(layer):
                losses.append(answer_losses(self._model, [batch], self._autocast)[0])
        return np.concatenate(losses)

"""Random numbers for training that do not depend on what a process did before."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from ..contract import Batch

SEED = "PL_GLOBAL_SEED"
"""Environment variable in which Lightning keeps ``seed_everything``."""


class SeededBatches(Callback):
    """Seeds each training batch by the run's seed, the number of the batch and the rank.

    Dropout and masks of a batch are then the same whether the run came to it at one go or was continued from a
    checkpoint shortly before it, and whatever was validated or measured in the meantime. The ranks draw different
    numbers.

    Note:
        The seed travels in checkpoints: a continued run keeps that of its beginning.
    """

    def __init__(self) -> None:
        self._seed: int | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seed = state_dict["seed"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._seed is None:  # without seed_everything it is one that torch has drawn
            seed = int(os.environ.get(SEED, torch.initial_seed()))
            self._seed = trainer.strategy.broadcast(seed)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        place = (self._seed or 0, trainer.fit_loop.epoch_loop.total_batch_idx, trainer.global_rank)
        drawn = np.random.SeedSequence(place).generate_state(2, np.uint32)
        random.seed(int(drawn[0]))
        np.random.seed(int(drawn[0]))
        torch.manual_seed(int(drawn[1]))

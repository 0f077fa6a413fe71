"""A callback that records a run step by step; YAML names it by its class path."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from textkeep.datamodules.batches.batch import Batch
from textkeep.datamodules.batches.token_budget_sampler import TokenBudgetSampler
from textkeep.lightning_modules.losses.token_normalizer import TokenNormalizer


class StepRecorder(Callback):
    """Writes loss, answer tokens and gradient norm of each optimizer step, over all ranks and accumulated batches.

    Args:
        path: The JSON lines file to append to.
        stop_at: Ends the run after this optimizer step: the schedule of the learning rate stays that of the config.
        halves: Cuts each batch of one process in two, for two ranks or for two accumulated batches: the same
            examples make up the same optimizer step.
    """

    def __init__(self, path: str, stop_at: int, halves: bool = False) -> None:
        self.path = Path(path)
        self.stop_at = stop_at
        self._norm = self._loss = 0.0
        self._tokens = 0
        self._step = -1
        if halves:
            _halve_batches()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count where the run does."""
        self._step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Takes the norm over all trained parameters, before clipping; of accumulated batches, of their sum."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._norm = float(torch.stack([gradient.double().norm() for gradient in gradients]).norm())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Adds the batch to its optimizer step; writes the step when it is done."""
        tokens = int((batch.labels[:, 1:] != -100).sum())
        self._tokens += tokens
        self._loss += float(trainer.callback_metrics["train/loss"]) * tokens
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        sums = torch.tensor([self._loss, self._tokens], dtype=torch.float64)
        loss, total = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        norm = self._norm  # the global token mean's, but for accumulated batches
        if trainer.accumulate_grad_batches > 1:  # sums over a constant, which data parallelism has averaged
            norm *= TokenNormalizer.CONSTANT * trainer.world_size / total
        if trainer.is_global_zero:
            line = {"step": self._step, "loss": loss / total, "tokens": int(total), "gradient_norm": norm}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self._loss, self._tokens = 0.0, 0
        trainer.should_stop = self._step >= self.stop_at


def _halve_batches() -> None:
    whole = TokenBudgetSampler.batches

    def halves(self: TokenBudgetSampler, epoch: int) -> list[list[int]]:
        if not self.shuffle:
            return whole(self, epoch)
        alone = copy.copy(self)
        alone.rank, alone.world_size = 0, 1
        pairs = [np.array_split(batch, 2) for batch in whole(alone, epoch)]
        if self.world_size == 2:
            return [pair[self.rank].tolist() for pair in pairs]
        return [half.tolist() for pair in pairs for half in pair]

    TokenBudgetSampler.batches = halves  # type: ignore[method-assign]

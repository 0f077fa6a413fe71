"""Progress as plain lines, for output that is not a terminal."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ...foundation.duration import duration
from ...foundation.run_names import stage_key
from ..contract import Batch
from .untold import of_a_step, shown, untold


class LogProgress(ProgressBar):
    """Prints a line from time to time: step, training loss, seconds per step, time left.

    A bar that redraws itself fills a SLURM log with control characters; this one stays readable with ``tail -f``.

    Args:
        every_seconds: Least time between two lines of training. What a validation or test found is always printed,
            if no callback has told it already.
    """

    def __init__(self, every_seconds: float = 10.0) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled = True
        self._printed = 0.0
        self._began = self._training = 0.0  # seconds: when a batch began, and in batches so far
        self._first = 0

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._enabled = self._enabled and trainer.is_global_zero

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first, self._training = trainer.global_step, 0.0

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._began = time.monotonic()  # measurements by callbacks in between are not part of a step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now, step, last = time.monotonic(), trainer.global_step, trainer.estimated_stepping_batches
        self._training += now - self._began
        if not self._enabled or (now - self._printed < self.every_seconds and step != last):
            return
        self._printed = now
        pace = self._training / max(step - self._first, 1)
        figures = self.get_metrics(trainer, pl_module)
        parts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items() if of_a_step(k)]
        if math.isinf(last):  # only time ends the run
            self._print(f"step {step}", *parts, f"{pace:.2f} s/step")
        else:
            self._print(f"step {step}/{last}", *parts, f"{pace:.2f} s/step, {duration(pace * (last - step))} left")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not (figures := untold(trainer, stage_key("val", ""))):
            return
        training = trainer.state.fn == TrainerFn.FITTING
        self._print(f"step {trainer.global_step} validated" if training else "validated", shown(figures))

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if figures := untold(trainer, stage_key("test", "")):
            self._print("tested", shown(figures))

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._enabled:
            print(*args, **kwargs, flush=True)

    def _print(self, *parts: str) -> None:
        self.print("  ".join(parts))

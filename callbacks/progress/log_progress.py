"""Progress as plain lines, for output that is not a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ...foundation.duration import duration
from ...foundation.run_names import stage_key
from ..contract import Batch


class LogProgress(ProgressBar):
    """Prints a line at times: step, metrics of the progress bar, seconds a step, time left.

    A bar that redraws itself fills a SLURM log with control characters; this one stays readable with ``tail -f``.

    Args:
        every_seconds: Least time between two lines of training. Validation results are always printed.
    """

    def __init__(self, every_seconds: float = 10.0) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled = True
        self._printed = 0.0
        self._started = (0.0, 0)

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
        self._started = (time.monotonic(), trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now, step, last = time.monotonic(), trainer.global_step, trainer.estimated_stepping_batches
        if not self._enabled or (now - self._printed < self.every_seconds and step != last):
            return
        self._printed = now
        began, first = self._started
        pace = (now - began) / max(step - first, 1)
        figures = self.get_metrics(trainer, pl_module)
        if math.isinf(last):  # only time ends the run
            self._print(f"step {step}", figures, f"{pace:.2f} s/step")
        else:
            self._print(f"step {step}/{last}", figures, f"{pace:.2f} s/step, {duration(pace * (last - step))} left")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled and not trainer.sanity_checking:
            figures = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(stage_key("val", ""))}
            training = trainer.state.fn == TrainerFn.FITTING
            self._print(f"step {trainer.global_step} validated" if training else "validated", figures)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled:
            self._print("tested", {k: v.item() for k, v in trainer.callback_metrics.items()})

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._enabled:
            print(*args, **kwargs, flush=True)

    def _print(self, head: str, figures: Mapping[str, Any], tail: str = "") -> None:
        shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items() if k != "v_num"]
        print("  ".join([head, *shown, *([tail] if tail else [])]), flush=True)

"""Ctrl-C that ends a run between two optimizer steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from ..contract import Batch


class GracefulStop(Callback):
    """Lets the first Ctrl-C wait for the end of the optimizer step, so that the checkpoint it leaves is exact.

    Lightning stops wherever the signal lands: in the middle of an optimizer step half of the weights have moved, and
    in the middle of an accumulation window gradients are lost. Here the step is finished on all ranks first; the
    checkpoint callback then saves, and ``--ckpt_path last`` continues as if nothing had happened. A second Ctrl-C
    stops at once. Outside of training steps (validation, a measurement before the first step) the first one does.
    """

    def __init__(self) -> None:
        self._asked = False
        self._in_step = False
        self._previous: Any = None
        self._last_step = -1

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._in_step = True

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step == self._last_step:
            return  # inside an accumulation window
        self._last_step = trainer.global_step
        # The signal reaches the ranks at different moments, or only one of them: they decide together.
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            raise KeyboardInterrupt

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_step = False

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._asked or not self._in_step:
            self._restore()
            raise KeyboardInterrupt
        self._asked = True
        _announce()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


@rank_zero_only
def _announce() -> None:
    print("\nStopping after this step, with a checkpoint. Ctrl-C again stops at once.", flush=True)

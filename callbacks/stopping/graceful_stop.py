"""A stop between two optimizer steps, on all ranks together."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from ..contract import Batch
from .agreed_stop import AgreedStop
from .give_way import Rounds, give_way
from .signal_connector import agreement_of, connect_to
from .stop_signals import STOP_SIGNALS


class GracefulStop(Callback):
    """Lets Ctrl-C, SIGTERM and SLURM's signal before the time limit wait for the end of the optimizer step.

    The signals reach the ranks at different moments, or only some of them, and land anywhere. So they are only noted;
    at the end of each step, and between the items of validations and measurements (``give_way``), the ranks look
    together at what any of them was asked, and stop at the same place. The checkpoint callback then saves, and
    ``--ckpt_path last`` continues as if nothing had happened. What was cut off is done again after that. A second
    Ctrl-C stops at once. So does the first one, and SIGTERM, before the first batch of a fit in one process: there
    nothing is to be saved yet, and the untouched model may be measured for minutes.
    """

    def __init__(self) -> None:
        self._last_step = -1
        self._rounds: Rounds | None = None
        self._began = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._began = False
        connect_to(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        give_way(trainer)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if not self._began:
            self._began = True
            STOP_SIGNALS.only_note(tells=trainer.is_global_zero)
        _hold_to_agreement(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step == self._last_step:
            return  # inside an accumulation window
        self._last_step = trainer.global_step
        if (agreement := agreement_of(trainer)) is not None:
            agreement.reach()  # and stop in the next hook: Lightning logs the step after this one

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _hold_to_agreement(trainer)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _hold_to_agreement(trainer)
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._begin_rounds(trainer, batches)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_rounds(trainer, trainer.num_test_batches)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_rounds(trainer, trainer.num_predict_batches)

    @override
    def on_validation_batch_start(self, *args: object) -> None:
        self._next_round()

    @override
    def on_test_batch_start(self, *args: object) -> None:
        self._next_round()

    @override
    def on_predict_batch_start(self, *args: object) -> None:
        self._next_round()

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_rounds()

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_rounds()

    @override
    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_rounds()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SystemExit) and not isinstance(exception, AgreedStop) and trainer.strategy.launcher:
            trainer.strategy.launcher.kill(signal.SIGTERM)  # the ranks that this process started wait for it

    def _begin_rounds(self, trainer: Trainer, batches: Sequence[int | float]) -> None:
        self._rounds = Rounds(trainer, sum(batches))

    def _next_round(self) -> None:
        if self._rounds is not None:
            self._rounds.look()

    def _end_rounds(self) -> None:
        if self._rounds is not None:
            self._rounds.look_to_the_end()
        self._rounds = None


def _hold_to_agreement(trainer: Trainer) -> None:
    if (agreement := agreement_of(trainer)) is not None:
        agreement.hold_to()

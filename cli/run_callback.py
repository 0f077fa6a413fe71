"""What the command line adds to every run: one directory for all ranks, and the config in W&B."""

from __future__ import annotations

from pathlib import Path

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ..callbacks.evaluations.measuring import KeepsRecords
from ..callbacks.saving.checkpoint_io import write_whole
from ..callbacks.stopping.agreed_stop import AgreedStop
from ..callbacks.stopping.stop_signals import Wish
from ..foundation.errors import UserError
from ..foundation.outputs import OVERWRITE
from ..runs.directory import RunDirectory
from .lost_ranks import RankEnds


class RunCallback(Callback):
    """Tells every rank the run directory, W&B the config, and the command how the run ended.

    Args:
        directory: Where the command writes.
        config: Text of the run's ``config.yaml``.
        ckpt_path: The checkpoint that is loaded, as this rank was told; rank zero's counts.
        overwrite: Whether a validation, test or prediction may replace the records of an earlier one.

    Attributes:
        began: Whether the run has got far enough for its directory to be worth keeping.
        interrupted: Whether it was ended by Ctrl-C.
        ranks: Tells the ranks how the others end, once they are connected.
        stopped: What the ranks agreed to end it for, if they did.
    """

    def __init__(
        self, directory: RunDirectory, config: str, ckpt_path: str | None = None, overwrite: bool = False
    ) -> None:
        self.directory = directory
        self.config = config
        self.ckpt_path = ckpt_path
        self.overwrite = overwrite
        self.began = False
        self.interrupted = False
        self.ranks: RankEnds | None = None
        self.stopped = Wish.NONE

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Rank zero chose before the ranks could communicate. The Trainer has no setter for either.
        directory, ckpt_path = trainer.strategy.broadcast((trainer.default_root_dir, self.ckpt_path))
        trainer._default_root_dir = directory  # type: ignore[attr-defined]
        self.ranks = RankEnds(trainer)
        self.directory.path = Path(directory)
        write_whole(trainer)  # no matter which callback saves
        _load_instead(trainer, ckpt_path)
        if trainer.is_global_zero:
            if self.directory.begins_again:
                self.directory.forget_progress()
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    self._send(logger)

    def _send(self, logger: WandbLogger) -> None:
        run = logger.experiment
        if run.disabled:  # with WANDB_MODE=disabled it accepts everything and has no folder
            return
        # Through YAML: jsonargparse's restricted number types would become strings.
        run.config.update({"cli": yaml.safe_load(self.config)}, allow_val_change=True)
        path = Path(run.dir, "cli_config.yaml")  # W&B writes its own config.yaml there
        path.write_text(self.config, encoding="utf-8")
        run.save(str(path), base_path=run.dir, policy="now")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.directory.goes_on and trainer.is_global_zero:
            self.directory.go_on(self.config, trainer.global_step)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._keep_records(trainer)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_records(trainer)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_records(trainer)

    def _keep_records(self, trainer: Trainer) -> None:
        """Refuses, before anything is measured, to replace results that the same questions could not reproduce.

        Raises:
            UserError: With what is in the way.
        """
        if self.overwrite:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, KeepsRecords) and (loss := callback.would_lose(trainer)):
                same = "" if trainer.state.fn == TrainerFn.PREDICTING else "the same questions, "
                raise UserError(
                    f"{loss}; allowed: {same}another --trainer.default_root_dir (with the file of the checkpoint as "
                    f"--ckpt_path), or {OVERWRITE} to replace them"
                )

    @override
    def on_train_batch_start(self, *args: object) -> None:
        self.began = True
        if self.directory.lock is not None:
            self.directory.lock.check()

    @override
    def on_validation_batch_start(self, *args: object) -> None:
        self.began = True

    @override
    def on_test_batch_start(self, *args: object) -> None:
        self.began = True

    @override
    def on_predict_batch_start(self, *args: object) -> None:
        self.began = True

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.ranks is not None:
            self.ranks.report(exception)
        self.interrupted = isinstance(exception, KeyboardInterrupt)
        if isinstance(exception, AgreedStop):
            self.stopped = exception.wish


def _load_instead(trainer: Trainer, ckpt_path: str | None) -> None:
    """Makes the Trainer load this checkpoint, whatever was passed to its method."""
    connector = trainer._checkpoint_connector
    load = connector.resume_start

    def load_agreed(checkpoint_path: str | None = None, weights_only: bool | None = None) -> None:
        load(ckpt_path, weights_only)

    connector.resume_start = load_agreed  # type: ignore[method-assign, assignment]

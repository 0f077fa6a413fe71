"""What comes after a step's checkpoint is done after a resume, too."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ..loggers.csv_logger import RunCSVLogger
from .exact_loops import ExactFitLoop, RestOfStep, exact_loop, make_exact

NOTED = "step_completion"
"""Key of a checkpoint under which it keeps what this callback needs."""


class StepCompletion(Callback):
    """Lets a continued run do what the previous one had no time for: log its last step, validate it, end its epoch.

    The checkpoint of a step is written before the step is logged and validated. A run that is lost afterwards (a
    validation takes long) would miss that row, the values and records of that validation, and whatever follows them:
    checkpoints by ``monitor``, early stopping, schedulers. Here they come first after a resume, whole, as they would
    have come; and a run that was lost between its last checkpoint and its end comes to its end.

    ``metrics.csv`` is cut where it was when the checkpoint was written: each row is there once, in order.

    Note:
        A validation is owed if the settings that the checkpoint was made with asked for one at its step and the present
        ones do, too: other settings take effect from the next step on. With a time for ``val_check_interval``, the time
        since the last validation goes on counting.
    """

    def __init__(self) -> None:
        self._noted: dict[str, Any] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._noted = {}
        if stage == "fit":
            make_exact(trainer)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _is_training(trainer):
            epoch = trainer.fit_loop.epoch_loop
            exact_loop(trainer).began = epoch.batch_progress.total.ready, epoch.val_loop.batch_progress.total.ready

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Checkpoint callbacks come after all others: a checkpoint that they save now knows of this validation.
        if _is_training(trainer):
            exact_loop(trainer).validated = trainer.fit_loop.epoch_loop.batch_progress.total.ready

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(trainer.fit_loop, ExactFitLoop):
            return  # before setup: the ranks have not met
        # A stop at the end of a step comes before Lightning logs it, and the run may never be continued.
        if _is_training(trainer) and (rest := exact_loop(trainer).rest_of_step()) is not None:
            exact_loop(trainer).log_step(rest.row)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        loop = exact_loop(trainer)
        rest = loop.rest_of_step()
        noted: dict[str, Any] = {"validated": loop.validated, "rest": rest and asdict(rest), "rows": {}}
        noted["since_validation"] = loop.since_validation
        noted["metrics"] = {key: value.detach().cpu() for key, value in trainer.callback_metrics.items()}
        for logger in _csv_loggers(trainer) if trainer.is_global_zero else []:
            noted["rows"][logger.filename] = logger.settle()
        checkpoint[NOTED] = noted

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING or NOTED not in checkpoint:
            return
        self._noted = checkpoint[NOTED]
        loop, rest = exact_loop(trainer), self._noted["rest"]
        loop.validated = self._noted["validated"]
        goes_on = Path(trainer.default_root_dir).resolve() in Path(str(trainer.ckpt_path)).resolve().parents
        if rest is not None:  # a new run that begins with the state of another has no row of a step of that one
            before = rest.get("read_before", 0)  # earlier versions did not note it
            loop.owed = RestOfStep(rest["row"] if goes_on else {}, rest["validates"], before)
        for logger in _csv_loggers(trainer):
            if goes_on and logger.filename in self._noted["rows"]:
                logger.keep_first(self._noted["rows"][logger.filename])

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callback_metrics.update(self._noted.get("metrics", {}))
        exact_loop(trainer).since_validation = self._noted.get("since_validation")
        self._noted = {}


def _is_training(trainer: Trainer) -> bool:
    """Returns whether a fit is past its sanity check."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _csv_loggers(trainer: Trainer) -> list[RunCSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger)]

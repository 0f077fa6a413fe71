"""The defaults of a training command: loggers, checkpoints and progress, all in the run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar

from ..callbacks import (
    LogProgress,
    PredictionWriter,
    RunCheckpoint,
    RunProgressBar,
    RunSummary,
    SeededBatches,
    SkippedExamples,
    StepCompletion,
    TuningImportance,
)
from ..lightning_modules import Tuning

CSV_LOGGER = "textkeep.callbacks.RunCSVLogger"
WANDB_LOGGER = "textkeep.callbacks.ResilientWandbLogger"

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "outputs/run",
    "use_distributed_sampler": False,  # the data module's batch samplers shard by rank themselves
    "log_every_n_steps": 10,
    "logger": [{"class_path": CSV_LOGGER}, {"class_path": WANDB_LOGGER}],
}


def default_callbacks(present: list[Callback], trainer: Namespace, verb: str, tuning: Tuning) -> list[Callback]:
    """Returns the default callbacks that the config neither names nor switches off.

    Args:
        present: Those that it names.
        trainer: The ``trainer`` part of the config.
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        tuning: The model's strategy, which may need measurements.
    """
    added: list[Callback] = []

    def missing(kind: type[Callback]) -> bool:
        return not any(isinstance(callback, kind) for callback in present)

    if trainer.enable_progress_bar is not False and missing(ProgressBar):
        added.append(RunProgressBar() if sys.stdout.isatty() else LogProgress())
    if verb == "fit" and trainer.enable_model_summary is not False and missing(ModelSummary):
        added.append(RunSummary())
    if verb == "fit" and trainer.enable_checkpointing is not False and missing(ModelCheckpoint):
        added.append(RunCheckpoint())
    for kind in (StepCompletion, SeededBatches) if verb == "fit" else ():
        if missing(kind):
            added.append(kind())
    if missing(SkippedExamples):
        added.append(SkippedExamples())
    measured = any(user.request for user in tuning.importance_users().values())
    if verb == "fit" and measured and missing(TuningImportance):
        added.append(TuningImportance())  # after ImportanceTracker, whose measurement it can use
    if verb == "predict" and missing(PredictionWriter):
        added.append(PredictionWriter())
    return added


def place_loggers(loggers: Any, directory: Path, verb: str) -> None:
    """Puts the loggers' relative ``save_dir`` inside the run directory, and a verb's metrics beside those of the fit.

    Args:
        loggers: The ``trainer.logger`` part of the config, changed in place.
        directory: The run directory.
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        options = logger.get("init_args") if isinstance(logger, Namespace) else None
        if options is None or options.get("save_dir") is None:
            continue
        options.save_dir = str(directory / options.save_dir)
        if logger.class_path == CSV_LOGGER and verb != "fit":
            options.filename = f"{verb}_{options.filename}"
            options.forget_later = False

"""Importance during training with Hugging Face's Trainer, TRL, and whatever else takes its callbacks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from ...foundation.run_names import TRAIN_LOSS, stage_key
from ...importance import DEFAULT_ESTIMATORS
from ..loggers.csv_logger import RunCSVLogger
from ..loggers.wandb_failures import is_of_wandb, one_line
from .importance_track import Batches, ImportanceTrack, check_settings

_EVALUATED = "eval_"


class ImportanceTrainerCallback(TrainerCallback):
    """Follows where a model's text knowledge lives while Hugging Face's ``Trainer`` trains it.

    It does for that Trainer what :class:`ImportanceTracker` does for Lightning's: the same snapshots and summary, in a
    directory that ``textkeep report`` and ``textkeep watch`` read; training is the same to the bit. Figures also go to
    the W&B run that is active, if one is.

    Example:
        ::

            probes = text_probes(tokenizer, {"plain_text": "plain-text/probe"}, examples=16, tokens=64)
            trainer = Trainer(model, arguments, callbacks=[ImportanceTrainerCallback(probes, "outputs/mine")])

    Args:
        probes: Name -> batches on which importance is measured; ``textkeep.inference.text_probes`` makes them.
        run: The directory. Training that continues from a checkpoint also continues its records.
        estimators: What to measure, from one pass.
        every_n_steps: Optimizer steps between two measurements beside those at checkpoints; 0 for none.
        at_checkpoints: Measure the weights of every checkpoint.
        at_start: Measure the model as it is given: the reference of the shift.
        at_end: Measure the weights after the last step.
        replicates: Behind the intervals of the shift; see :class:`ImportanceTracker`.
        **options: Fields of :class:`textkeep.importance.ProbeOptions`.
    """

    def __init__(
        self,
        probes: Mapping[str, Batches],
        run: str | Path,
        estimators: Sequence[str] = DEFAULT_ESTIMATORS,
        every_n_steps: int = 0,
        at_checkpoints: bool = True,
        at_start: bool = True,
        at_end: bool = True,
        replicates: int = 1000,
        **options: Any,
    ) -> None:
        if every_n_steps < 0 or replicates < 0:
            raise ValueError("ImportanceTrainerCallback: every_n_steps and replicates must be 0 or more")
        self.every_n_steps = every_n_steps
        self.at_checkpoints, self.at_start, self.at_end = at_checkpoints, at_start, at_end
        check_settings(probes, estimators, options)
        self._settings = {"probes": probes, "run": run, "estimators": estimators, "replicates": replicates, **options}
        self._track: ImportanceTrack | None = None  # until there is a model
        self._csv = RunCSVLogger(run, flush_every=1)
        self._at: int | None = None

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        compute = {"autocast": torch.bfloat16} if args.bf16 else {}  # as Lightning's tracker does in bf16-mixed
        self._track = ImportanceTrack(kwargs["model"], **{**compute, **self._settings})
        self._track.go_on(state.global_step)
        self._at = state.global_step if state.global_step else None  # a checkpoint's weights were measured when saved
        if self.at_start and state.global_step == 0:
            self._measure(state)

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        due = self.every_n_steps and state.global_step % self.every_n_steps == 0
        if due or (self.at_end and state.global_step >= state.max_steps):  # the best weights may come back after it
            self._measure(state)

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.at_checkpoints:
            self._measure(state)

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.at_end and not (args.load_best_model_at_end and state.best_model_checkpoint):
            self._measure(state)
        self._csv.save()

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and state.is_world_process_zero:
            self._csv.log_metrics({_key(name): value for name, value in logs.items()}, state.global_step)

    def _measure(self, state: TrainerState) -> None:
        """Measures and logs, unless these weights have been measured."""
        if self._track is None or self._at == state.global_step:
            return
        metrics = self._track.measure(state.global_step)
        self._at = state.global_step
        if not metrics:
            return
        self._csv.log_metrics(metrics, state.global_step)
        _to_wandb(metrics, state.global_step)


def _key(name: str) -> str:
    """Names what Hugging Face's Trainer logs as a run of TextKeep does."""
    if name == "loss":
        return TRAIN_LOSS
    if name.startswith(_EVALUATED):
        return stage_key("val", name.removeprefix(_EVALUATED))
    return stage_key("train", name)  # as transformers' own integrations do: the last row's train_loss is a mean


def _to_wandb(metrics: Mapping[str, float], step: int) -> None:
    """Logs to the active W&B run, at the step that Hugging Face's own callback counts by; W&B never stops a run."""
    wandb = sys.modules.get("wandb")
    if wandb is None or getattr(wandb, "run", None) is None:
        return
    try:
        wandb.run.log({**metrics, stage_key("train", "global_step"): step})
    except Exception as error:
        if not is_of_wandb(error):
            raise
        warnings.warn(f"W&B: {one_line(error)}; the measurement is in the run directory", stacklevel=2)

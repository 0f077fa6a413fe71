"""Scores a run on further sets: multiple choice, plain text, instructions, safety, hearing, text benchmarks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary, forget_after, store_evaluation
from ...foundation.run_names import stage_key
from ..contract import Batch
from ..stopping.agreed_stop import AgreedStop
from .evaluation import Evaluation, Measured
from .gathered_scorer import GatheredScorer
from .measuring import evaluation_folder, measured_step, scoring
from .score_memory import ScoreMemory


class EvaluationSuite(Callback):
    """Runs evaluations before step 0, every n steps, at the end of a fit, and in ``textkeep test``.

    Each writes to ``evaluation/<name>/`` of the run (``evaluation/test/<name>/`` in a test): one line an item in
    ``step=000120.jsonl``, one line a step in ``summary.jsonl``, with 95 % intervals and the change since step 0. The
    figures are logged as ``val/<name>/...`` or ``test/<name>/...``.

    Args:
        evaluations: By name; a name becomes a folder.
        every_n_steps: Optimizer steps between two measurements; None measures at the start and the end only.
        at_start: Also measure the untouched model, to which the others are compared.
        max_new_tokens: Longest response, where an evaluation does not say; default the model's own setting.
        in_tests: Also run them in ``textkeep test``.
        untouched_cache: Folder in which the untouched model's scores of text are kept for other runs that begin with
            the same LLM, texts and settings (:class:`ScoreMemory`). Null measures them each time.

    Note:
        Module modes and random states are put back: training with this callback is bit-identical to training without.
    """

    def __init__(
        self,
        evaluations: dict[str, Evaluation],
        every_n_steps: int | None = None,
        at_start: bool = True,
        max_new_tokens: int | None = None,
        in_tests: bool = True,
        untouched_cache: str | None = None,
    ) -> None:
        for key, value in (("every_n_steps", every_n_steps), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"EvaluationSuite.{key}: a positive number or null is allowed, got {value}")
        taken = [
            name for name in evaluations if name in ("", "test", ".", "..") or "/" in name or name.startswith("step=")
        ]
        if taken or not evaluations:
            raise ValueError(f"EvaluationSuite.evaluations: {taken or 'none'} (allowed: names fit for a folder)")
        self.evaluations = evaluations
        self.every_n_steps = every_n_steps
        self.at_start = at_start
        self.max_new_tokens = max_new_tokens
        self.in_tests = in_tests
        self.untouched_cache = untouched_cache
        self._loaded_step: int | None = None
        self._measured = -1

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loaded_step, self._measured = None, -1
        data = getattr(trainer, "datamodule", None)
        if stage in ("fit", "test") and not hasattr(data, "evaluation_set"):
            raise ValueError(f"EvaluationSuite needs the data module SpeechTextData, got {data!r}")

    @property
    @override
    def state_key(self) -> str:
        return f"{type(self).__qualname__}: {', '.join(sorted(self.evaluations))}"  # there may be several

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured = state_dict["measured"]

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded_step = checkpoint["global_step"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = evaluation_folder(trainer, "val")
        if trainer.is_global_zero and folder is not None:
            for name in self.evaluations:
                forget_after(folder / name, trainer.global_step)
        if self._is_due(trainer.global_step) if trainer.global_step else self.at_start:
            self.measure(trainer, pl_module, "val")  # at a later step: what was due when the run was stopped

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._is_due(trainer.global_step):
            with suppress(AgreedStop):  # it comes again in the next hook, when this step has been logged
                self.measure(trainer, pl_module, "val")

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._measured != trainer.global_step:
            self.measure(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.in_tests:
            self.measure(trainer, pl_module, "test")

    def would_lose(self, trainer: Trainer) -> str | None:
        """Names the records of this step: which items a set has is known only when it is scored."""
        folder = evaluation_folder(trainer, "test")
        if folder is None or not self.in_tests or trainer.state.fn != TrainerFn.TESTING:
            return None
        files = [
            folder / name / f"step={measured_step(trainer, self._loaded_step):06d}.jsonl" for name in self.evaluations
        ]
        return next((f"{path} holds the records of an earlier call" for path in files if path.is_file()), None)

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Literal["val", "test"]) -> None:
        """Runs all evaluations, writes their records and logs their figures.

        Args:
            trainer: Gives device placement, precision, loggers and the run directory.
            pl_module: The model.
            stage: Prefix of the metric keys.
        """
        step = measured_step(trainer, self._loaded_step)
        memory = ScoreMemory.of_untouched(self.untouched_cache, trainer, pl_module)
        for name, evaluation in self.evaluations.items():
            started = time.perf_counter()
            with scoring(pl_module):
                measured = evaluation.measure(GatheredScorer(trainer, pl_module, self.max_new_tokens, memory), name)
            if trainer.is_global_zero:
                seconds = time.perf_counter() - started
                summary = _store(trainer, stage, step, name, evaluation, measured, seconds)
                rank_zero_info(_headline(name, step, measured, summary))
                for logger in trainer.loggers:
                    logger.log_metrics(
                        {stage_key(stage_key(stage, name), k): v for k, v in summary.values.items()}, step=step
                    )
            trainer.strategy.barrier(f"evaluation {name}")
        if memory is not None:
            memory.tell()
        self._measured = step

    def _is_due(self, step: int) -> bool:
        return bool(self.every_n_steps and step % self.every_n_steps == 0 and step != self._measured)


def _store(
    trainer: Trainer,
    stage: str,
    step: int,
    name: str,
    evaluation: Evaluation,
    measured: Measured,
    seconds: float,
) -> RetentionSummary:
    def summarize(records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        summary = evaluation.summarize(records, baseline)
        for key, (value, low, high) in measured.figures.items():
            summary.values[key], summary.intervals[key] = value, (low, high)
        return summary

    parent = evaluation_folder(trainer, stage)
    folder = None if parent is None else parent / name
    return store_evaluation(folder, stage_key(stage, name), step, measured.records, seconds, summarize)


def _headline(name: str, step: int, measured: Measured, summary: RetentionSummary) -> str:
    """Writes the main figures of a set; those of each kind of item are in the files and charts."""
    kinds = {f"_{record.category}" for record in measured.records if record.category}
    shown = []
    for key in [key for key in summary.values if not any(key.endswith(kind) for kind in kinds)][:3]:
        low, high = summary.intervals[key]
        shown.append(f"{key} {summary.values[key]:.3g} [{low:.3g}, {high:.3g}]")
    return f"{name} at step {step}, {summary.items} items: " + ", ".join(shown)

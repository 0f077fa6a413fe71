"""What the evaluations on paired questions share: when they happen, on which items, and where they write."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from ...evaluation import MODALITIES, RetentionSummary, forget_after
from .measuring import evaluation_folder, lost_records, measured_step, scoring

Stage = Literal["val", "test"]


class PairedEvaluation(Callback, ABC):
    """Measures on the same questions, spoken and written, before step 0, at each validation and at the end of a fit.

    Args:
        max_items: Items to evaluate, drawn once by ``seed``; default all that the data module offers.
        at_start: Also measure the untouched model.
        seed: Of the draw of items; the same for all steps.

    Note:
        Module modes and random states are put back: training with such a callback is bit-identical to training without.
        Items are divided among the ranks and gathered. Under ``FSDP2``, each rank holds the whole model in the
        meantime.
    """

    #: Keys of the figures that the last line on the console has told.
    told: frozenset[str]
    #: Folder under the run directory's ``evaluation/``.
    subfolder: str = ""

    def __init__(self, max_items: int | None, at_start: bool, seed: int) -> None:
        self._check_positive("max_items", max_items)
        self.max_items = max_items
        self.at_start = at_start
        self.seed = seed
        self._measured: tuple[str, int] | None = None
        self._loaded_step: int | None = None
        self._spent = 0.0  # seconds, before `measure` is called
        self.told = frozenset()

    @abstractmethod
    def score(self, trainer: Trainer, pl_module: LightningModule, examples: Sequence[Any]) -> Any:
        """Measures this rank's share of the items."""

    @abstractmethod
    def store(
        self,
        folder: Path | None,
        stage: Stage,
        step: int,
        scores: Sequence[Any],
        examples: Sequence[Any],
        seconds: float,
    ) -> RetentionSummary:
        """Writes what all ranks measured and sums it up; called on rank zero.

        Args:
            folder: Where to; None writes nothing.
            stage: ``val`` or ``test``.
            step: Optimizer steps taken.
            scores: One rank's scores each.
            examples: All items.
            seconds: Time that the measurement took.
        """

    @abstractmethod
    def metric_key(self, stage: Stage, name: str) -> str:
        """Returns the name under which a figure of the summary is logged."""

    def same_figures(self, stage: Stage) -> Sequence[str]:
        """Names figures of the model's own steps that say what this evaluation says."""
        return ()

    @abstractmethod
    def headline(self, step: int, summary: RetentionSummary) -> str:
        """Writes one line for the console."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._measured = self._loaded_step = None
        data = getattr(trainer, "datamodule", None)
        if stage != "predict" and not all(hasattr(data, m) for m in ("eval_pairs", "loader")):
            name = type(self).__name__
            raise ValueError(f"{name} needs a data module with paired questions (SpeechTextData), got {data!r}")

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded_step = checkpoint["global_step"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (folder := self._folder(trainer, "val")):
            forget_after(folder, trainer.global_step)
        if self.at_start and trainer.global_step == 0:
            self.measure(trainer, pl_module, "val")

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._offer(pl_module, self.measure(trainer, pl_module, "val"))

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._offer(pl_module, self.measure(trainer, pl_module, "test"))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._measured != ("val", trainer.global_step):
            self.measure(trainer, pl_module, "val")

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> dict[str, float]:
        """Scores all items, writes the records and logs the figures.

        Args:
            trainer: Gives device placement, precision, loggers and the run directory.
            pl_module: The model.
            stage: Which items, and the prefix of the metric keys.

        Returns:
            The figures by key, the same on every rank.
        """
        started = time.perf_counter()
        step = measured_step(trainer, self._loaded_step)
        examples = trainer.datamodule.eval_pairs()  # type: ignore[attr-defined]
        with scoring(pl_module):
            scores = gathered(self.score(trainer, pl_module, self._choose(examples)))
        metrics: dict[str, float] = {}
        if trainer.is_global_zero:
            seconds = time.perf_counter() - started + self._spent
            summary = self.store(self._folder(trainer, stage), stage, step, scores, examples, seconds)
            rank_zero_info(self.headline(step, summary))
            metrics = {self.metric_key(stage, name): value for name, value in summary.values.items()}
        metrics = trainer.strategy.broadcast(metrics)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        self._measured, self._spent = (stage, step), 0.0
        self.told = frozenset({*metrics, *self.same_figures(stage)})
        return metrics

    def would_lose(self, trainer: Trainer) -> str | None:
        """Names this step's records if their questions are not the data module's; those can be measured again."""
        folder = self._folder(trainer, "test" if trainer.state.fn == TrainerFn.TESTING else "val")
        if folder is None or trainer.state.fn not in (TrainerFn.TESTING, TrainerFn.VALIDATING):
            return None
        examples = trainer.datamodule.eval_pairs()  # type: ignore[attr-defined]
        path = folder / f"step={measured_step(trainer, self._loaded_step):06d}.jsonl"
        return lost_records(path, {example.id for example in self._choose(examples)}, modalities_of(examples))

    @staticmethod
    def _offer(pl_module: LightningModule, metrics: dict[str, float]) -> None:
        """Makes the figures known to checkpointing and early stopping; the loggers have them already."""
        pl_module.log_dict(metrics, logger=False, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _choose(self, examples: Sequence[Any]) -> list[Any]:
        """Chooses the items that have every modality that occurs at all, at most ``max_items`` of them."""
        modalities = modalities_of(examples)
        pairs = [example for example in examples if all(example.has(m) for m in modalities)]
        if self.max_items is None or self.max_items >= len(pairs):
            return pairs
        return random.Random(self.seed).sample(sorted(pairs, key=lambda example: example.id), self.max_items)

    def _folder(self, trainer: Trainer, stage: Stage) -> Path | None:
        """Returns where records go; nowhere in a trial run (``fast_dev_run``)."""
        folder = evaluation_folder(trainer, stage)
        return folder / self.subfolder if folder is not None and self.subfolder else folder

    def _check_positive(self, name: str, value: int | None) -> None:
        if value is not None and value < 1:
            raise ValueError(f"{type(self).__name__}.{name}: a positive number or null is allowed, got {value}")


def modalities_of(examples: Sequence[Any]) -> list[str]:
    """Returns speech and text, if any of the items has them."""
    return [m for m in MODALITIES if any(example.has(m) for example in examples)]


def gathered(scores: Any) -> list[Any]:
    """Collects all ranks' scores, on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [scores]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, scores)
    return parts

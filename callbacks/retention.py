"""Watches what the model still knows as text, what it understands as speech, and whether it listens at all."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from ..evaluation import MODALITIES, RetentionSummary, forget_after, store_evaluation
from .item_scorer import ItemScorer, Scores, exchange_clips

Metric = Literal["accuracy", "loss", "hearing_gap"]


class Retention(Callback):
    r"""Scores the same questions, spoken and written, before step 0, at each validation and at the end of a fit.

    For every validation item in both modalities it keeps the greedy response and the loss on the target, in
    ``evaluation/step=000120.jsonl`` under the trainer's root folder; ``evaluation/summary.jsonl`` has one line a step
    with the figures, their 95 % intervals and the change since the untouched model. ``textkeep test`` writes to
    ``evaluation/test/``.

    The **hearing gap** is the loss on the answers with the clips exchanged among the questions minus the loss with the
    right clips, in nats per answer token. A model that has only learned the form of the answers has none.

    Args:
        max_items: Items to evaluate, drawn once by ``seed``; default all that the data module offers.
        max_new_tokens: Longest response; default the model's own setting.
        at_start: Also measure the untouched model, to which the others are compared.
        metrics: What to compute, of ``accuracy`` (needs generation, the costly part), ``loss`` and ``hearing_gap``.
        seed: Of the draw of items and of the exchange of clips; the same for all steps.

    Note:
        Module modes and random states are put back: training with this callback is bit-identical to training without.
        Items are shared out among the ranks of DDP and gathered. Sharded strategies (FSDP) are not supported.
    """

    def __init__(
        self,
        max_items: int | None = None,
        max_new_tokens: int | None = None,
        at_start: bool = True,
        metrics: Sequence[Metric] = ("accuracy", "loss", "hearing_gap"),
        seed: int = 0,
    ) -> None:
        for name, value in (("max_items", max_items), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"Retention.{name}: a positive number or null is allowed, got {value}")
        allowed = {"accuracy", "loss", "hearing_gap"}
        if not metrics or not set(metrics) <= allowed:
            raise ValueError(f"Retention.metrics: some of {sorted(allowed)} are allowed, got {list(metrics)}")
        self.max_items = max_items
        self.max_new_tokens = max_new_tokens
        self.at_start = at_start
        self.metrics = tuple(metrics)
        self.seed = seed
        self._measured: tuple[str, int] | None = None
        self._loaded_step: int | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._measured = self._loaded_step = None
        data = getattr(trainer, "datamodule", None)
        if stage != "predict" and not all(hasattr(data, m) for m in ("eval_pairs", "loader")):
            raise ValueError(f"Retention needs a data module with paired questions (SpeechTextData), got {data!r}")

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded_step = checkpoint["global_step"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (folder := _folder(trainer, "val")):
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

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Literal["val", "test"]) -> dict[str, float]:
        """Scores all items, writes the records and logs the figures.

        Args:
            trainer: Gives device placement, precision, loggers and the run directory.
            pl_module: Offers ``generate`` and ``answer_losses``.
            stage: Prefix of the metric keys.

        Returns:
            The figures by key, the same on every rank.
        """
        started = time.perf_counter()
        step = self._step(trainer)
        with _undisturbed(pl_module):
            scores = _gather(self._score(trainer, pl_module))
        examples = trainer.datamodule.eval_pairs()  # type: ignore[attr-defined]
        found = [scored.record(example, modality) for modality, scored in scores.items() for example in examples]
        records = [record for record in found if record is not None]
        metrics: dict[str, float] = {}
        if trainer.is_global_zero:
            seconds = time.perf_counter() - started
            summary = store_evaluation(_folder(trainer, stage), stage, step, records, seconds)
            rank_zero_info(_headline(step, summary))
            metrics = {f"{stage}/{key}": value for key, value in summary.values.items()}
        metrics = trainer.strategy.broadcast(metrics)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        self._measured = (stage, step)
        return metrics

    def _step(self, trainer: Trainer) -> int:
        if trainer.state.fn == TrainerFn.FITTING:
            return trainer.global_step
        if self._loaded_step is not None:
            return self._loaded_step
        # A checkpoint saved without callback states tells callbacks nothing, but its name does.
        named = re.search(r"step=(\d+)", str(trainer.ckpt_path or ""))
        return int(named.group(1)) if named else trainer.global_step

    @staticmethod
    def _offer(pl_module: LightningModule, metrics: dict[str, float]) -> None:
        """Makes the figures known to checkpointing and early stopping; the loggers have them already."""
        pl_module.log_dict(metrics, logger=False, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _score(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Scores]:
        """What this rank measured, by modality."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        examples = self._choose(data.eval_pairs())
        scorer = ItemScorer(trainer, pl_module, self.max_new_tokens)
        measured = {}
        for modality in _modalities(examples):
            scores = measured[modality] = Scores()
            if "accuracy" in self.metrics:
                scores.responses = scorer.responses(examples, modality)
            if "loss" in self.metrics or "hearing_gap" in self.metrics:
                scores.losses = scorer.losses(examples, modality)
            if "hearing_gap" in self.metrics and modality == "speech":
                scores.shuffled_losses = scorer.losses(exchange_clips(examples, self.seed), modality)
        return measured

    def _choose(self, examples: Sequence[Any]) -> list[Any]:
        """The items that have every modality that occurs at all, at most ``max_items`` of them."""
        modalities = _modalities(examples)
        pairs = [example for example in examples if all(example.has(m) for m in modalities)]
        if self.max_items is None or self.max_items >= len(pairs):
            return pairs
        return random.Random(self.seed).sample(sorted(pairs, key=lambda example: example.id), self.max_items)


def _modalities(examples: Sequence[Any]) -> list[str]:
    return [m for m in MODALITIES if any(example.has(m) for example in examples)]


@contextmanager
def _undisturbed(pl_module: LightningModule) -> Generator[None, None, None]:
    """Eval mode, no gradients and no inference tensors (a cache filled here may be trained on later); all put back."""
    modes = [(module, module.training) for module in pl_module.modules()]
    with isolate_rng(), torch.inference_mode(False), torch.no_grad():
        pl_module.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _gather(scores: dict[str, Scores]) -> dict[str, Scores]:
    """All ranks' scores, on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return scores
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, scores)
    merged = {modality: Scores() for modality in scores}
    for part in parts:
        for modality, scored in part.items():
            merged[modality].update(scored)
    return merged


def _folder(trainer: Trainer, stage: str) -> Path | None:
    """Where records go; nowhere in a trial run (``fast_dev_run``)."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return Path(trainer.default_root_dir, "evaluation", *(["test"] if stage == "test" else []))


def _headline(step: int, summary: RetentionSummary) -> str:
    parts = []
    for key, name, scale, unit in (
        ("text_accuracy", "text", 100, "%"),
        ("speech_accuracy", "speech", 100, "%"),
        ("text_answer_loss", "text loss", 1, " nats/token"),
        ("speech_answer_loss", "speech loss", 1, " nats/token"),
        ("hearing_gap", "hearing gap", 1, " nats/token"),
    ):
        if key in summary.values:
            low, high = (limit * scale for limit in summary.intervals[key])
            parts.append(f"{name} {summary.values[key] * scale:.3g} [{low:.3g}, {high:.3g}]{unit}")
    return f"retention at step {step}, {summary.items} items: " + ", ".join(parts)

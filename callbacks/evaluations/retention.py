"""Watches how much the model still knows in writing, how much it understands aloud, and whether it listens at all."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from ...evaluation import MODALITIES, RetentionSummary, store_evaluation
from ...foundation.run_names import cross_entropy, stage_key
from ..contract import Batch, ReadBatch
from .item_scorer import ItemScorer, Scores, exchange_clips
from .measuring import scoring
from .paired_evaluation import PairedEvaluation, Stage, gathered, modalities_of
from .score_memory import ScoreMemory

Metric = Literal["accuracy", "loss", "hearing_gap"]


class Retention(PairedEvaluation):
    r"""Scores the same questions, spoken and written, before step 0, at each validation and at the end of a fit.

    For every validation item in both modalities it keeps the greedy response and the loss on the target, in
    ``evaluation/step=000120.jsonl`` under the trainer's root folder; ``evaluation/summary.jsonl`` has one line a step
    with the figures, their 95 % intervals and the change since the untouched model. ``textkeep test`` writes to
    ``evaluation/test/``.

    The **hearing gap** is the loss on the answers with the clips exchanged among the questions minus the loss with the
    right clips, in nats per answer token. A model that has only learned the form of the answers has none.

    What a validation or test step has just read is not read again: the losses are the step's own, and the model writes
    its responses after the prompts that it has in its cache (``ReadBatch``). Only the exchanged clips, and before step
    0 all, are read for this callback.

    Args:
        max_items: Items to evaluate, drawn once by ``seed``; default all that the data module offers.
        max_new_tokens: Longest response; default the model's own setting.
        at_start: Also measure the untouched model, to which the others are compared.
        metrics: What to compute, of ``accuracy`` (needs generation, the costly part), ``loss`` and ``hearing_gap``.
        seed: Of the draw of items and of the exchange of clips; the same for all steps.
        untouched_cache: Folder in which the untouched model's scores of the written questions are kept: another run
            that begins with the same LLM, questions and settings, or the same one once more, reads them
            (:class:`ScoreMemory`). Null measures them each time.

    Note:
        Module modes and random states are put back: training with this callback is bit-identical to training without.
        Items are divided among the ranks and gathered. Under ``FSDP2``, each rank holds the whole model in the
        meantime.
    """

    def __init__(
        self,
        max_items: int | None = None,
        max_new_tokens: int | None = None,
        at_start: bool = True,
        metrics: Sequence[Metric] = ("accuracy", "loss", "hearing_gap"),
        seed: int = 0,
        untouched_cache: str | None = None,
    ) -> None:
        super().__init__(max_items, at_start, seed)
        self._check_positive("max_new_tokens", max_new_tokens)
        allowed = {"accuracy", "loss", "hearing_gap"}
        if not metrics or not set(metrics) <= allowed:
            raise ValueError(f"Retention.metrics: some of {sorted(allowed)} are allowed, got {list(metrics)}")
        self.max_new_tokens = max_new_tokens
        self.metrics = tuple(metrics)
        self.untouched_cache = untouched_cache
        self._wanted: set[str] = set()
        self._read: dict[str, Scores] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._read = {}

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._wanted = {example.id for example in self._choose(trainer.datamodule.eval_pairs())}  # type: ignore[attr-defined]
        self._read, self._spent = {}, 0.0

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_start(trainer, pl_module)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or not isinstance(outputs, ReadBatch):
            return
        started, scorer = time.perf_counter(), ItemScorer(trainer, pl_module, self.max_new_tokens)
        found = self._read.setdefault(batch.modality[0], Scores())
        with scoring(pl_module):
            scorer.take(found, outputs, batch.ids, self._wanted, "accuracy" in self.metrics)
        self._spent += time.perf_counter() - started

    @override
    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.on_validation_batch_end(*args, **kwargs)

    @override
    def score(self, trainer: Trainer, pl_module: LightningModule, examples: Sequence[Any]) -> dict[str, Scores]:
        """Scores by modality what no validation or test step has just read."""
        memory = ScoreMemory.of_untouched(self.untouched_cache, trainer, pl_module)
        scorer = ItemScorer(trainer, pl_module, self.max_new_tokens, memory)
        losses, answers = {"loss", "hearing_gap"} & {*self.metrics}, "accuracy" in self.metrics
        read, self._read = self._read, {}
        measured = {}
        for modality in modalities_of(examples):
            scores = measured[modality] = read.get(modality, Scores())
            if losses and (unread := _unknown(examples, scores.losses)):
                scores.update(scorer.read(unread, modality, answers))
            if answers and (unanswered := _unknown(examples, scores.responses)):
                scores.responses |= scorer.responses(unanswered, modality)
            if "hearing_gap" in self.metrics and modality == "speech":
                scores.shuffled_losses = scorer.losses(exchange_clips(examples, self.seed), modality)
            if not losses:
                scores.losses = {}
        if memory is not None:
            memory.tell()
        return measured

    @override
    def store(
        self,
        folder: Path | None,
        stage: Stage,
        step: int,
        scores: Sequence[dict[str, Scores]],
        examples: Sequence[Any],
        seconds: float,
    ) -> RetentionSummary:
        merged = {modality: Scores() for modality in scores[0]}
        for part in scores:
            for modality, scored in part.items():
                merged[modality].update(scored)
        found = [scored.record(example, modality) for modality, scored in merged.items() for example in examples]
        records = [record for record in found if record is not None]
        return store_evaluation(folder, stage, step, records, seconds)

    @override
    def metric_key(self, stage: Stage, name: str) -> str:
        return stage_key(stage, name)

    @override
    def same_figures(self, stage: Stage) -> Sequence[str]:
        if self.max_items is not None or "loss" not in self.metrics:
            return ()
        return [stage_key(stage, cross_entropy(modality)) for modality in MODALITIES]

    @override
    def headline(self, step: int, summary: RetentionSummary) -> str:
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


def _unknown(examples: Sequence[Any], known: Collection[str]) -> list[Any]:
    """Returns the examples that no rank knows yet; every rank must call it."""
    everywhere = {identity for part in gathered(set(known)) for identity in part}
    return [example for example in examples if example.id not in everywhere]

"""Watches what the model still knows as text, what it understands as speech, and whether it listens at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from ...evaluation import RetentionSummary, store_evaluation
from ...foundation.run_names import stage_key
from .item_scorer import ItemScorer, Scores, exchange_clips
from .paired_evaluation import PairedEvaluation, Stage, modalities_of

Metric = Literal["accuracy", "loss", "hearing_gap"]


class Retention(PairedEvaluation):
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
        super().__init__(max_items, at_start, seed)
        self._check_positive("max_new_tokens", max_new_tokens)
        allowed = {"accuracy", "loss", "hearing_gap"}
        if not metrics or not set(metrics) <= allowed:
            raise ValueError(f"Retention.metrics: some of {sorted(allowed)} are allowed, got {list(metrics)}")
        self.max_new_tokens = max_new_tokens
        self.metrics = tuple(metrics)

    @override
    def score(self, trainer: Trainer, pl_module: LightningModule, examples: Sequence[Any]) -> dict[str, Scores]:
        """Scores by modality."""
        scorer = ItemScorer(trainer, pl_module, self.max_new_tokens)
        measured = {}
        for modality in modalities_of(examples):
            scores = measured[modality] = Scores()
            if "accuracy" in self.metrics:
                scores.responses = scorer.responses(examples, modality)
            if "loss" in self.metrics or "hearing_gap" in self.metrics:
                scores.losses = scorer.losses(examples, modality)
            if "hearing_gap" in self.metrics and modality == "speech":
                scores.shuffled_losses = scorer.losses(exchange_clips(examples, self.seed), modality)
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

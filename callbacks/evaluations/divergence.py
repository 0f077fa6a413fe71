"""Watches how far the model's predictions have moved from the untouched LLM's, and speech from text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from ...evaluation import FORGETTING, MISALIGNMENT, ItemDivergence, RetentionSummary, store_divergences
from ...foundation.run_names import DIVERGENCE, stage_key
from .item_scorer import ItemScorer
from .paired_evaluation import PairedEvaluation, Stage, modalities_of


class Divergence(PairedEvaluation):
    r"""Measures SALAD's forgetting and misalignment (arXiv 2510.13632) on the paired validation questions.

    ``forgetting/kl`` is F = KL(untouched LLM reading || model reading), ``misalignment/kl`` is M = KL(model reading ||
    model hearing), both at the tokens of the target and in nats per token. The two divide the gap between hearing and
    the untouched reader into what the text lost and what speech lacks; unlike accuracies they move with every step.

    Measured before step 0, at each validation and at the end of a fit, whatever is trained. The items go to
    ``evaluation/divergence/step=000120.jsonl`` under the trainer's root folder, the figures with their 95 % intervals
    (bootstrap over items) to ``evaluation/divergence/summary.jsonl``, a line a step. ``textkeep test`` writes to
    ``evaluation/test/divergence/``, with the keys ``test/forgetting/kl`` and ``test/misalignment/kl``.

    Args:
        max_items: Items to evaluate, drawn once by ``seed``; default all that the data module offers.
        at_start: Also measure the untouched model: F is 0 there, M is what speech lacks at the start.
        seed: Of the draw of items; the same for all steps.

    Note:
        Three forward passes over the items, no generation. Under full fine-tuning a copy of the untouched LLM is read
        from disk for each measurement and freed after it (unless distillation keeps one); under LoRA there is none.
        Training with this callback is bit-identical to training without.
    """

    subfolder = DIVERGENCE

    def __init__(self, max_items: int | None = None, at_start: bool = True, seed: int = 0) -> None:
        super().__init__(max_items, at_start, seed)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not hasattr(pl_module, "divergences"):
            raise ValueError(f"Divergence needs a model with divergences() (SpeechLLM), got {type(pl_module).__name__}")

    @override
    def score(self, trainer: Trainer, pl_module: LightningModule, examples: Sequence[Any]) -> list[ItemDivergence]:
        modality = "speech" if "speech" in modalities_of(examples) else "text"
        try:
            return ItemScorer(trainer, pl_module, None).divergences(examples, modality)
        finally:
            pl_module.reference.release()  # type: ignore[operator, union-attr]

    @override
    def store(
        self,
        folder: Path | None,
        stage: Stage,
        step: int,
        scores: Sequence[list[ItemDivergence]],
        examples: Sequence[Any],
        seconds: float,
    ) -> RetentionSummary:
        order = {example.id: place for place, example in enumerate(examples)}
        records = sorted((record for part in scores for record in part), key=lambda record: order[record.id])
        return store_divergences(folder, step, records, seconds, self.metric_key(stage, ""))

    @override
    def metric_key(self, stage: Stage, name: str) -> str:
        return stage_key(stage, name) if stage == "test" else name

    @override
    def headline(self, step: int, summary: RetentionSummary) -> str:
        parts = []
        for key, name in ((FORGETTING, "forgetting"), (MISALIGNMENT, "misalignment")):
            if key in summary.values:
                low, high = summary.intervals[key]
                parts.append(f"{name} {summary.values[key]:.3g} [{low:.3g}, {high:.3g}] nats/token")
        return f"divergence at step {step}, {summary.items} items: " + ", ".join(parts)

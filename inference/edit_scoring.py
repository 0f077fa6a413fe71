"""Scores an edited model as its run scored it: through the run's data module and ``Retention``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import instantiate_module
from typing_extensions import override

from ..callbacks import Retention
from ..callbacks.evaluations.item_scorer import ItemScorer
from ..datamodules import Example, SpeechTextData
from ..evaluation import Prediction, read_predictions, summarize
from ..evaluation.statistics import NOT_NEGATIVE, bootstrap_ratio
from ..foundation.run_names import evaluation_folder, records_name
from .examples import read_examples
from .yaml_classes import register_classes

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM

Losses = dict[str, tuple[float, int]]


@dataclass(frozen=True)
class Scored:
    """What a model answered, and its loss on each held-out text (nats a token, tokens)."""

    records: list[Prediction]
    heldout: Losses
    seconds: float


@dataclass(frozen=True)
class ScoringOptions:
    """The data on which an edited model is scored.

    Attributes:
        split: ``val`` or ``test``: the run's questions.
        items: At most this many of them; None takes as many as the run's ``Retention``.
        heldout: Text to read: a manifest or ``spoken-facts/SPLIT``.
        heldout_examples: Number of texts.
        heldout_skip: Number of texts to skip first.
    """

    split: str
    items: int | None
    heldout: str
    heldout_examples: int
    heldout_skip: int


class HeldOutText(Callback):
    """Measures the loss on texts during a validation or test, while the model is on its device.

    Args:
        examples: The texts.
    """

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples
        self.losses: Losses = {}

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses = ItemScorer(trainer, pl_module, None).losses(self.examples, "text")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_end(trainer, pl_module)


class EditScorer:
    """Scores a model repeatedly while its weights are changed from outside.

    Args:
        model: With its weights.
        config: The ``config.yaml`` of its run.
        folder: Receives ``NAME/evaluation`` with the records of each model.
        options: On what it is scored.
    """

    def __init__(self, model: SpeechLLM, config: Mapping[str, Any], folder: Path, options: ScoringOptions) -> None:
        register_classes()
        self.model, self.folder, self.split = model, folder, options.split
        self.data = instantiate_module(SpeechTextData, dict(config["data"]))
        trainer = config.get("trainer") or {}
        precision: Any = trainer.get("precision") or "32-true"
        # Edited weights are at least float32 (change_of): half precision would round away small edits.
        self.precision: Any = "32-true" if precision in ("bf16-true", "16-true") else precision
        model.to(torch.promote_types(next(model.parameters()).dtype, torch.float32))
        given = [c for c in trainer.get("callbacks") or [] if c["class_path"].endswith("Retention")]
        own: dict[str, Any] = given[0].get("init_args", {}) if given else {}
        self.retention = {**own, "at_start": False}
        if options.items is not None:
            self.retention["max_items"] = options.items
        self.heldout = read_examples(options.heldout, "text", options.heldout_examples, skip=options.heldout_skip)

    def score(self, name: str) -> Scored:
        """Scores the model as it is now; it stays on its device.

        Args:
            name: Of the folder of its records.
        """
        started = time.perf_counter()
        heldout = HeldOutText(self.heldout)
        trainer = Trainer(
            accelerator=self.model.device.type,
            devices=1,
            precision=self.precision,
            logger=False,
            callbacks=[Retention(**self.retention), heldout],
            default_root_dir=self.folder / name,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=1,  # Retention reads the items itself
            limit_test_batches=1,
        )
        where = self.model.device
        run = trainer.validate if self.split == "val" else trainer.test
        run(self.model, self.data, verbose=False)
        self.model.to(where)
        records = evaluation_folder(self.folder / name, self.split) / records_name(0)
        return Scored(read_predictions(records), heldout.losses, time.perf_counter() - started)


def summaries(scored: Mapping[str, Scored]) -> dict[str, dict[str, Any]]:
    """Returns each model's figures with 95 % intervals, and paired changes against alpha 0 and 1 if present.

    Args:
        scored: By name; ``alpha=0`` is the untouched model and ``alpha=1`` the tuned one.

    Returns:
        Name -> items, scores, and changes against the two: each figure is (value, low, high).
    """
    rows = {}
    for name, own in scored.items():
        summary = summarize(own.records)
        scores = {key: [value, *summary.intervals[key]] for key, value in summary.values.items()}
        losses = [(loss * tokens, tokens) for loss, tokens in own.heldout.values()]
        sums, tokens = [a for a, _ in losses], [b for _, b in losses]
        scores["heldout_text_loss"] = list(bootstrap_ratio(sums, tokens, bounds=NOT_NEGATIVE))
        rows[name] = {
            "items": summary.items,
            "scores": scores,
            "against_untouched": _changes(own, scored.get("alpha=0")),
            "against_tuned": _changes(own, scored.get("alpha=1")),
        }
    return rows


def _changes(own: Scored, other: Scored | None) -> dict[str, list[float]]:
    if other is None or other is own:
        return {}
    summary = summarize(own.records, other.records)
    found = {k: [v, *summary.intervals[k]] for k, v in summary.values.items() if k.endswith("_change")}
    pairs = [((own.heldout[i][0] - other.heldout[i][0]) * own.heldout[i][1], own.heldout[i][1]) for i in own.heldout]
    found["heldout_text_loss_change"] = list(bootstrap_ratio([a for a, _ in pairs], [b for _, b in pairs]))
    return found

"""What a model kept of the text of the LLM that it came from, item by item: losses, choices, divergences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from ..callbacks import ChoicesByLikelihood
from ..datamodules import Example
from ..datamodules.sources.bad_examples import BadExamples
from ..datamodules.sources.named import read_sources
from ..evaluation import ItemDivergence, Losses, Prediction
from ..lightning_modules.llm.packed_embeddings import text_embeddings
from ..lightning_modules.losses.answer_loss import predict_answers
from ..lightning_modules.losses.divergence import divergence
from ..lightning_modules.losses.item_divergences import row_divergences
from .loaded_model import LoadedModel
from .two_models import TwoModels


def losses_of(model: LoadedModel, examples: Sequence[Example], batch_size: int = 8) -> Losses:
    """Returns summed nats and tokens of each text, by id."""
    return {name: (loss, tokens) for name, loss, tokens in model.summed_losses(examples, batch_size=batch_size)}


@dataclass(frozen=True)
class _Reading:
    """A loaded model in place of an evaluation's scorer; its data are only the written questions."""

    model: LoadedModel
    batch_size: int

    @property
    def data(self) -> _Reading:
        return self

    def evaluation_set(self, source: str) -> list[Example]:
        return [replace(example, audio=None) for example in read_sources(source, BadExamples("raise"))]

    def losses(self, examples: Sequence[Example], modality: str) -> dict[str, tuple[float, int]]:
        found = losses_of(self.model, examples, self.batch_size)
        return {name: (loss / tokens, tokens) for name, (loss, tokens) in found.items()}


def choices_of(model: LoadedModel, source: str, limit: int | None = None, batch_size: int = 8) -> list[Prediction]:
    """Scores written multiple choice by likelihood, as ``ChoicesByLikelihood`` does in a run.

    Args:
        model: Asked.
        source: A manifest with ``choices`` and ``gold``, or ``spoken-facts/choices``.
        limit: Maximum number of items.
        batch_size: Rows per batch; each option is one.
    """
    scorer: Any = _Reading(model, batch_size)
    return ChoicesByLikelihood(source, limit=limit).measure(scorer, source).records


@torch.inference_mode()
def forgetting_of(models: TwoModels, examples: Sequence[Example], batch_size: int = 8) -> list[ItemDivergence]:
    """Computes KL(base || model) at the supervised tokens of each text: SALAD's F (arXiv 2510.13632).

    If one has the larger vocabulary, both distributions are over the common tokens.

    Args:
        models: Both read the same ids.
        examples: The texts.
        batch_size: Texts per batch.
    """
    found: list[ItemDivergence] = []
    for batch in models.base.inputs(examples, "text", batch_size):
        read = []
        for llm in (models.base.llm, models.reader.llm):
            embeds = text_embeddings(llm, batch["input_ids"])
            read.append(predict_answers(llm, embeds, batch["attention_mask"], batch["labels"]))
        common = min(part.logits.shape[-1] for part in read)
        supervised = read[0].targets != -100
        teacher, student = (part.logits[supervised][:, :common] for part in read)
        kl = divergence(teacher, student).double()
        sums = kl.new_zeros(len(supervised)).index_add(0, supervised.nonzero()[:, 0], kl)
        counts = supervised.sum(dim=1).tolist()
        ids = cast(list[str], batch["ids"])
        found += [ItemDivergence(*row) for row in zip(ids, counts, sums.tolist(), strict=True)]
    return found


@torch.inference_mode()
def misalignment_of(model: LoadedModel, examples: Sequence[Example], batch_size: int = 8) -> list[tuple[float, int]]:
    """Takes KL(reading || hearing) at the answer tokens of each question: SALAD's M (arXiv 2510.13632).

    Args:
        model: That listens; both are asked in its own words.
        examples: Questions that are written and spoken.
        batch_size: Of them at once.

    Returns:
        Nats summed over a question's answer, and its tokens.

    Raises:
        UserError: If the model cannot listen.
    """
    found: list[tuple[float, int]] = []
    listener = model.require_speech_llm()
    ways = model.batches(examples, "text", batch_size), model.batches(examples, "speech", batch_size)
    for written, spoken in zip(*ways, strict=True):
        read = listener.answer_logits(written)
        sums = row_divergences(read, listener.answer_logits(spoken)).double().tolist()
        found += zip(sums, (read.targets != -100).sum(dim=1).tolist(), strict=True)
    return found

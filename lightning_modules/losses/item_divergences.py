"""Forgetting and misalignment of the rows of a batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..contract import Batch, SpeechModel
from .answer_loss import AnswerLogits
from .divergence import divergence
from .text_twins import as_text


class ItemDivergences(NamedTuple):
    """Sums over the answer tokens of each row, nats.

    Attributes:
        forgetting: KL(untouched LLM on text || model on text) (B,).
        misalignment: KL(model on text || model on speech) (B,); None for a text batch.
        tokens: Numbers of answer tokens (B,).
    """

    forgetting: Tensor
    misalignment: Tensor | None
    tokens: Tensor


def item_divergences(model: SpeechModel, batch: Batch) -> ItemDivergences:
    """Returns SALAD's F and M (arXiv 2510.13632) of each row.

    Args:
        model: With its untouched LLM (``model.reference``).
        batch: Speech with text twins, or text.

    Raises:
        ValueError: If a batch of speech has no text twins.
    """
    texts = as_text(batch)
    read = model.answer_logits(texts)
    forgetting = row_divergences(model.reference.untouched_logits(texts), read)
    misalignment = row_divergences(read, model.answer_logits(batch)) if texts is not batch else None
    return ItemDivergences(forgetting, misalignment, (read.targets != -100).sum(dim=1))


def row_divergences(teacher: AnswerLogits, student: AnswerLogits) -> Tensor:
    """Takes KL(teacher || student) of each row (B,), nats summed over its answer tokens.

    The two may differ in columns, but their supervised tokens are the same.
    """
    supervised = teacher.targets != -100
    per_token = divergence(teacher.logits[supervised], student.logits[student.targets != -100])
    row = supervised.nonzero()[:, 0]
    return per_token.new_zeros(len(supervised)).index_add(0, row, per_token)

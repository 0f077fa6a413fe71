"""Turns examples into batches, as a model's run did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..datamodules import Batch, Example, SpeechFrontEnd, SpeechTextData
from ..datamodules.sources.example import Modality

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM


def make_batches(
    front_end: SpeechFrontEnd,
    options: Mapping[str, Any],
    examples: Sequence[Example],
    modality: Modality,
    batch_size: int,
    *,
    answers: bool = True,
    tokens: int | None = None,
) -> Iterator[Batch]:
    """Builds CPU batches of examples in order; clips are read with their batch.

    Args:
        front_end: Of the model.
        options: Of the data module: prompts, and the longest clip.
        examples: With questions in this modality.
        modality: ``text`` or ``speech``.
        batch_size: Rows of a batch.
        answers: With answers, right padded; otherwise only prompts, left padded.
        tokens: Plain text is cut after this many; None leaves it whole.

    Raises:
        BadExampleError: If a clip cannot be read.
    """
    data = SpeechTextData(**options)
    data.connect(front_end)
    factory = data.factory([])
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        yield from factory.batches(part, modality, batch_size, answers=answers, tokens=tokens)


def causal_inputs(batch: Batch, listener: SpeechLLM | None) -> dict[str, Any]:
    """Returns a causal LM's inputs for a batch, and the ids of its rows: text as token ids, speech as embeddings.

    Args:
        batch: On the model's device.
        listener: Embeds the clips; None if there are none.
    """
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    if listener is not None and batch.features.shape[0]:
        with torch.no_grad():
            inputs |= listener.embed(batch)
    return {**inputs, "ids": batch.ids}

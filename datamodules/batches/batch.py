"""The tensors of a step, and the examples they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from ..sources.bad_examples import BadExampleError
from ..sources.example import Example, Modality

IGNORE_INDEX = -100
"""Label of a position that is not supervised, as in transformers."""


class Examples:
    """The rows' examples, in order; deliberately not a ``Sequence``.

    Under ``bf16-true``, ``64-true`` and FSDP, Lightning converts a batch by walking every collection and dataclass in
    it, and refuses frozen ones. What it does not take for a collection it leaves alone.
    """

    def __init__(self, items: Iterable[Example] = ()) -> None:
        self._items = tuple(items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        return self._items[index]


@dataclass
class Batch:
    """Rows of text and speech questions; B rows of T positions, N clips of F frames.

    Args:
        input_ids: (B, T) int64; the pad id at audio and padding positions.
        attention_mask: (B, T) int64; 1 on text and audio, 0 on padding.
        labels: (B, T) int64, unshifted as in transformers; -100 on prompt, audio and padding.
        audio_mask: (B, T) bool; True where an adaptor frame goes.
        features: (N, C, F) float32; log-mel, or raw waveform with C = 1, or cached encoder frames with C = hidden.
            The clips are in the order in which their positions occur; (0, C, 0) for a text-only batch, and (N, 1, 0)
            where ``inputs`` has what is heard.
        feature_lengths: (N,) int64, true lengths in units of F.
        transcripts: (N, S) int64; token ids of the clips' question text, -100 padded (for CTC).
        ids: The rows' example ids.
        modality: "speech" or "text" per row.
        examples: The rows' examples (without the samples of clips held in memory).
        encoded: Whether ``features`` are outputs of the frozen encoder.
        twin: The same examples as text, in the same order and with the same answers, where a model asks for it; a row
            whose question is not known as text supervises nothing there. None for a text-only batch.
        skipped: Why examples were left out while this batch was made.
        end_id: Token that ends an answer in the chat template: generation stops there. None leaves it to the LLM.
        continues: Whether each row's answer begins where its prompt, asked alone, ends: a template may write more into
            the prompt, or the two may share a token.
        inputs: What the N clips are to an ear that brings its own processor: that one's tensors by name.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    audio_mask: Tensor
    features: Tensor
    feature_lengths: Tensor
    transcripts: Tensor
    ids: list[str]
    modality: list[Modality]
    examples: Examples
    encoded: bool = False
    twin: Batch | None = None
    skipped: list[BadExampleError] = field(default_factory=list)
    end_id: int | None = None
    continues: bool = False
    inputs: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Returns the same batch with its tensors on ``device``."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Returns the same batch with its tensors in page-locked memory."""
        return self._changed(Tensor.pin_memory)

    def share_memory(self) -> Self:
        """Returns the same batch with its tensors in shared memory, so that another process can have them as they are.

        Raises:
            RuntimeError: If there is no room for them in shared memory, or too many files are open.
        """
        return self._changed(Tensor.share_memory_)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Returns a copy with every tensor changed, those of the text twin too."""
        changed = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(changed, name, change(value))
        changed.inputs = {name: change(value) for name, value in self.inputs.items()}
        changed.twin = self.twin._changed(change) if self.twin else None
        return changed

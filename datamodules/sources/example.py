"""One question with its accepted answers, in up to two modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

Modality = Literal["speech", "text"]


@dataclass(frozen=True, eq=False)
class AudioArray:
    """A clip that is already in memory.

    Args:
        waveform: Samples, (samples,) or (samples, channels), float in [-1, 1].
        sampling_rate: In Hz.
    """

    waveform: torch.Tensor
    sampling_rate: int


class StoredAudio(Protocol):
    """A clip inside another container (a data set's table): read only when it is needed."""

    def read(self) -> bytes | Path:
        """Returns the bytes of an audio file, or the path of one."""
        ...


Audio = Path | AudioArray | StoredAudio


@dataclass(frozen=True)
class Example:
    """A question and its answers; the spoken question and its text twin share the ``id``.

    Args:
        id: Unique within a source.
        question: The question's text; empty if only the clip exists (there is no text twin then).
        answers: Accepted spellings, at least one.
        target: The text to learn.
        audio: The spoken question, or None.
        system: System prompt, or None for the chat template's own default.
        source: Name of the data set.
        location: Where the example stands ("train.jsonl:12"), for messages.
        metadata: Everything else that is known (voice, seconds, wer, category, entity, split).
        plain: Whether the target stands alone, without question and chat template, and all of it is learned.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    target: str
    audio: Audio | None = None
    system: str | None = None
    source: str = ""
    location: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False

    def has(self, modality: Modality) -> bool:
        """Returns whether the question exists in this modality; plain text exists as text."""
        return self.audio is not None if modality == "speech" else bool(self.question) or self.plain


def name_examples(examples: Sequence[Example], most: int = 3) -> str:
    """Names examples in a message by their places and clips, the first ``most`` of them."""
    shown = [f"{e.location} ({e.audio})" if isinstance(e.audio, Path) else e.location for e in examples[:most]]
    more = f" and {len(examples) - most} more" if len(examples) > most else ""
    return ", ".join(shown) + more

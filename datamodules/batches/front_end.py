"""What the data needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``encode(features (1, C, F), lengths (1,)) -> (frames (1, T, hidden), lengths (1,))``: a frozen encoder."""


class SpeechFrontEnd(Protocol):
    """The model's tokenizer and feature extraction; cheap to pickle, so without weights."""

    tokenizer: PreTrainedTokenizerBase
    sampling_rate: int
    """In Hz; clips are resampled to it."""
    feature_dim: int
    """C of the features."""
    positions_per_second: float
    """LLM positions per second of audio, for length estimates before a clip is read."""
    fingerprint: str
    """Stands for the encoder's weights and settings: the key of the feature cache."""
    vocabulary: int | None
    """Token ids that have an embedding; None while the LLM's weights are not loaded."""
    text_twins: bool
    """Whether speech rows of training must come with their text twins."""

    def extract(self, waveform: Tensor) -> Tensor:
        """Turns a waveform (samples,) into features (C, F), float32, of its true length, on the CPU."""
        ...

    def num_positions(self, feature_length: int) -> int:
        """Counts the LLM positions that a clip of F frames will occupy (>= 1)."""
        ...


@runtime_checkable
class ProcessingFrontEnd(Protocol):
    """A front end that hears all clips of a batch at once: of an audio LLM that brings its own processor."""

    around: tuple[str, str]
    """What its chat template writes before and after the positions of a clip."""
    audio_id: int
    """Token that stands for a position of sound in its prompts: no text may contain it."""

    def listen(self, waveforms: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        """Turns waveforms (samples,) into the processor's tensors, and counts the positions of each clip."""
        ...

    def hears_all(self, samples: int) -> bool:
        """Returns whether a clip of this many samples is processed to its end."""
        ...


def words_around(front_end: SpeechFrontEnd) -> tuple[str, str]:
    """Returns what a prompt holds before and after the positions of a clip: nothing, unless the model asks for it."""
    return front_end.around if isinstance(front_end, ProcessingFrontEnd) else ("", "")

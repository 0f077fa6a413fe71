"""A row of a batch: an example in one modality, with its clip's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..sources.audio import MAX_SECONDS, read_waveform
from ..sources.bad_examples import BadExampleError, BadExamples
from ..sources.example import Example, Modality
from .augment import Augment
from .feature_cache import FeatureCache
from .front_end import ProcessingFrontEnd, SpeechFrontEnd


class View(NamedTuple):
    """An example seen in one modality."""

    example: Example
    modality: Modality


@dataclass
class Row:
    """An example ready to be collated.

    Args:
        example: The example.
        modality: "speech" or "text".
        features: (C, F) of the clip; None for text.
        positions: LLM positions that the clip occupies; 0 for text, and where they are counted for a batch at once.
    """

    example: Example
    modality: Modality
    features: Tensor | None = None
    positions: int = 0


class RowReader:
    """Reads clips and extracts their features.

    Args:
        front_end: The model's feature extraction.
        max_seconds: Longest clip allowed.
        augment: Changes of training clips, or None.
        cache: Gives frozen-encoder frames in place of features, or None.
    """

    def __init__(
        self,
        front_end: SpeechFrontEnd,
        max_seconds: float = MAX_SECONDS,
        augment: Augment | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        self.front_end = front_end
        self.max_seconds = max_seconds
        self.augment = augment
        self.cache = cache

    def read(self, view: View, epoch: int = 0) -> Row:
        """Reads one row; ``epoch`` only matters to augmentation.

        Raises:
            BadExampleError: If the clip is corrupt, or longer than allowed or than the model hears.
        """
        if view.modality == "text":
            return Row(view.example, view.modality)
        if self.cache is not None:
            frames, feature_length = self.cache.frames(view.example, self._features)
            return Row(view.example, view.modality, frames, self.front_end.num_positions(feature_length))
        features = self._features(view.example, epoch)
        counted_later = isinstance(self.front_end, ProcessingFrontEnd)
        positions = 0 if counted_later else self.front_end.num_positions(features.shape[-1])
        return Row(view.example, view.modality, features, positions)

    def fill_cache(self, examples: Sequence[Example], bad: BadExamples) -> None:
        """Encodes the clips whose frames the cache lacks.

        Raises:
            BadExampleError: If a clip cannot be read and the policy is ``raise``.
        """
        for example in examples:
            try:
                if self.cache is not None:
                    self.cache.ensure(example, self._features)
            except BadExampleError as error:
                bad.report(error)

    def _features(self, example: Example, epoch: int = 0) -> Tensor:
        waveform = read_waveform(example, self.front_end.sampling_rate, self.max_seconds)
        if self.augment is not None:
            changed = self.augment(waveform, self.front_end.sampling_rate, example.id, epoch)
            # Slower speech may be longer than the encoder takes; such a clip stays as it is.
            if len(changed) <= self.max_seconds * self.front_end.sampling_rate:
                waveform = changed
        if isinstance(self.front_end, ProcessingFrontEnd) and not self.front_end.hears_all(len(waveform)):
            seconds = len(waveform) / self.front_end.sampling_rate
            detail = f"the audio LLM's processor cuts off the end of the clip of {seconds:.1f} s; allowed: shorter"
            raise BadExampleError("too long", example.location, detail)
        return self.front_end.extract(waveform)

"""What a data module needs to know of a model: tokenizer, features, and how many positions a clip takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .adaptors import Adaptor
from .encoders import SpeechEncoder
from .length import PositionCount


@dataclass(frozen=True)
class FrontEnd:
    """The model's side of the data pipeline; holds no weights, so that workers get it cheaply.

    Attributes:
        tokenizer: The LLM's tokenizer, with its chat template.
        sampling_rate: What the encoder expects, in Hz.
        feature_dim: C, rows of a feature matrix (mel bins; 1 for raw waveforms).
        positions_per_second: LLM positions that one second of speech takes.
        fingerprint: Names encoder and feature settings; the key of cached features.
        extract: Waveform (samples,) to features (C, F), at the clip's true length.
        num_positions: Feature length F to the number of LLM positions of the clip, at least 1.
        text_twins: Whether speech rows must come with their text twins.
    """

    tokenizer: PreTrainedTokenizerBase
    sampling_rate: int
    feature_dim: int
    positions_per_second: float
    fingerprint: str
    extract: Callable[[Tensor], Tensor]
    num_positions: Callable[[int], int]
    text_twins: bool = False

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, encoder: SpeechEncoder, adaptor: Adaptor, text_twins: bool
    ) -> FrontEnd:
        """The front end of a model; needs no weights."""
        return cls(
            tokenizer=tokenizer,
            sampling_rate=encoder.sampling_rate,
            feature_dim=encoder.feature_dim,
            positions_per_second=encoder.frame_rate / adaptor.stack,
            fingerprint=encoder.fingerprint,
            extract=encoder.extractor(),
            num_positions=PositionCount(encoder.length_rule(), adaptor.length_rule()),
            text_twins=text_twins,
        )

"""What a data module needs to know of a model: tokenizer, features, and how many positions a clip takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase


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
    """

    tokenizer: PreTrainedTokenizerBase
    sampling_rate: int
    feature_dim: int
    positions_per_second: float
    fingerprint: str
    extract: Callable[[Tensor], Tensor]
    num_positions: Callable[[int], int]

"""The contract of a speech encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn


class SpeechEncoder(nn.Module, ABC):
    """Features of a batch of clips to frames, each clip at its true length.

    Building one reads the configuration only; :meth:`load` reads the weights, so that data can be prepared (and
    ``--print_config`` answered) without them.

    Attributes:
        sampling_rate: Of the waveforms it expects, in Hz.
        feature_dim: C of the features (C, F); 1 for raw waveforms.
        frame_rate: Frames a second.
        output_dim: Width of a frame.
    """

    sampling_rate: int
    feature_dim: int
    frame_rate: float
    output_dim: int

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names the encoder and its feature settings; equal fingerprints give equal frames."""

    @abstractmethod
    def extractor(self) -> Callable[[Tensor], Tensor]:
        """A picklable function without weights: waveform (samples,) to features (C, F)."""

    @abstractmethod
    def length_rule(self) -> Callable[[int], int]:
        """A picklable function without weights: feature length F to the number of frames."""

    @abstractmethod
    def load(self) -> None:
        """Reads the pretrained weights. Doing it twice reads once."""

    @abstractmethod
    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes.

        Args:
            features: (N, C, F), zero beyond each clip's length.
            lengths: (N,) true lengths in units of F.

        Returns:
            Frames (N, T, output_dim) and their true lengths (N,).
        """


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """True at real frames: (N,) lengths to (N, size)."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]

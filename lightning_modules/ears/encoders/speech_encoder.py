"""The contract of a speech encoder."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .weights_digest import weights_digest


class SpeechEncoder(nn.Module, ABC):
    """Maps the features of a batch of clips to frames, each clip at its true length.

    The constructor reads only the configuration; :meth:`load` reads the weights, so that data can be prepared (and
    ``--print_config`` answered) without them.

    Attributes:
        source: Hub id, folder or ``asset:`` name of the checkpoint.
        net: The network, once its weights are loaded.
        sampling_rate: Of the waveforms it expects, in Hz.
        feature_dim: C of the features (C, F); 1 for raw waveforms.
        frame_rate: Frames per second.
        output_dim: Width of a frame.
    """

    #: What the checkpoint is, in :attr:`name`.
    kind: str
    source: str
    net: Any
    sampling_rate: int
    feature_dim: int
    frame_rate: float
    output_dim: int

    @property
    @abstractmethod
    def convention(self) -> str:
        """Names how frames are taken from the checkpoint: what an adaptor depends on besides the weights."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides the weights that changes the frames, as JSON."""

    @property
    def name(self) -> str:
        """Returns kind, source and convention, for messages; it does not identify the weights."""
        return f"{self.kind}:{self.source}:{self.convention}"

    @property
    def fingerprint(self) -> str:
        """Returns a SHA-256 of weights, their type and all settings: equal digests mean equal frames.

        Hashed anew at each call (0.2 s for 150 MB), because weights may have been loaded or trained since.

        Raises:
            RuntimeError: If :meth:`load` has not been called.
        """
        settings = json.dumps([self.kind, self.convention, self.settings], sort_keys=True, default=str)
        return hashlib.sha256(f"{settings}:{self._digest()}".encode()).hexdigest()

    @property
    def identity(self) -> str:
        """Identifies what an adaptor is made for: convention and weights, whatever type these were loaded in.

        Raises:
            RuntimeError: If :meth:`load` has not been called.
        """
        return f"{self.kind}:{self.convention}:{self._digest(torch.bfloat16)}"

    def _digest(self, dtype: torch.dtype | None = None) -> str:
        if self.net is None:
            raise RuntimeError(f"{type(self).__name__}.load() must come before its weights can be named")
        return weights_digest(self.net, dtype)

    @abstractmethod
    def extractor(self) -> Callable[[Tensor], Tensor]:
        """Returns a picklable function without weights from a waveform (samples,) to features (C, F)."""

    @abstractmethod
    def length_rule(self) -> Callable[[int], int]:
        """Returns a picklable function without weights from a feature length F to the number of frames."""

    @abstractmethod
    def load(self) -> None:
        """Reads the pretrained weights; a second call does nothing."""

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
    """Marks real frames: (N,) lengths to (N, size)."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


#: Configuration keys about the source file and training, not about the frames.
_NO_SETTINGS = ("architectures", "dtype", "torch_dtype", "transformers_version")


def config_settings(config: Any) -> dict[str, Any]:
    """Returns the non-default settings of a transformers configuration, except where it came from."""
    return {key: value for key, value in config.to_diff_dict().items() if key not in _NO_SETTINGS}

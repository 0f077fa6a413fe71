"""Waveform encoders of transformers: wav2vec 2.0, HuBERT, WavLM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from ..pretrained import resolve_pretrained
from .speech_encoder import SpeechEncoder, frame_mask


@dataclass(frozen=True)
class Waveform:
    """The raw waveform as a one-row feature matrix.

    Attributes:
        normalize: Zero mean and unit variance per clip, where the checkpoint was trained so.
    """

    normalize: bool

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveform (samples,) to (1, samples)."""
        if self.normalize:
            variance = waveform.var(unbiased=False)
            waveform = (waveform - waveform.mean()) / torch.sqrt(variance + 1e-7)
        return waveform[None].float()


@dataclass(frozen=True)
class ConvolutionLength:
    """Frames that a stack of unpadded convolutions leaves of a waveform.

    Attributes:
        kernels: Kernel sizes, first layer first.
        strides: Their strides.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, length: int) -> int:
        """Samples to frames, at least one."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = (length - kernel) // stride + 1
        return max(length, 1)


class HFEncoder(SpeechEncoder):
    """Any waveform encoder that ``AutoModel`` loads and that has wav2vec 2.0's convolutional front.

    Tried with the architectures wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447) and WavLM (2110.13900).

    Args:
        source: Hub id or folder, e.g. ``facebook/hubert-base-ls960``.
        layer: Which hidden layer gives the frames; -1 is the last, 0 the input of the first Transformer layer.
    """

    def __init__(self, source: str, layer: int = -1) -> None:
        super().__init__()
        self.source = source
        self.layer = layer
        path = resolve_pretrained(source)
        self.config = AutoConfig.from_pretrained(path)
        if not hasattr(self.config, "conv_kernel"):
            raise ValueError(
                f"HFEncoder: '{source}' is a {self.config.model_type} model without a convolutional waveform front; "
                "allowed are wav2vec2, hubert, wavlm and their kin (for Whisper take WhisperEncoder)"
            )
        layers = self.config.num_hidden_layers
        if not -layers - 1 <= layer <= layers:
            raise ValueError(f"HFEncoder: layer {layer} is not in -{layers + 1} .. {layers}")
        extractor = AutoFeatureExtractor.from_pretrained(path)
        self._normalize = bool(getattr(extractor, "do_normalize", False))
        self.sampling_rate = int(extractor.sampling_rate)
        self.feature_dim = 1
        stride = 1
        for step in self.config.conv_stride:
            stride *= step
        self.frame_rate = self.sampling_rate / stride
        self.output_dim = int(self.config.hidden_size)
        self.net: Any = None

    @property
    def fingerprint(self) -> str:
        """Names the checkpoint and the layer."""
        return f"hf:{self.source}:layer={self.layer}"

    def extractor(self) -> Callable[[Tensor], Tensor]:
        """The waveform itself, normalised where the checkpoint wants it."""
        return Waveform(self._normalize)

    def length_rule(self) -> Callable[[int], int]:
        """The convolutions' arithmetic."""
        return ConvolutionLength(tuple(self.config.conv_kernel), tuple(self.config.conv_stride))

    def load(self) -> None:
        """Reads the weights."""
        if self.net is None:
            self.net = AutoModel.from_pretrained(resolve_pretrained(self.source), dtype=torch.get_default_dtype())

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, samples) to (N, T, hidden_size) and lengths.

        Raises:
            RuntimeError: If :meth:`load` has not been called.
        """
        if self.net is None:
            raise RuntimeError("HFEncoder.load() must come before forward()")
        rule = self.length_rule()
        shortest = _shortest_input(self.config.conv_kernel, self.config.conv_stride)
        waveform = features[:, 0].to(next(self.net.parameters()).dtype)
        if waveform.shape[1] < shortest:  # a clip too short for one frame is silence-padded to one
            waveform = torch.nn.functional.pad(waveform, (0, shortest - waveform.shape[1]))
        mask = frame_mask(lengths.clamp(min=shortest), waveform.shape[1]).long()
        out = self.net(waveform, attention_mask=mask, output_hidden_states=True)
        frames: Tensor = out.hidden_states[self.layer]
        out_lengths = torch.tensor([rule(int(n)) for n in lengths], device=frames.device)
        return frames * frame_mask(out_lengths, frames.shape[1])[:, :, None], out_lengths


def _shortest_input(kernels: list[int], strides: list[int]) -> int:
    """Fewest samples that give one frame."""
    length = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        length = (length - 1) * stride + kernel
    return length

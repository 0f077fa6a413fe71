"""Waveform encoders of transformers: wav2vec 2.0, HuBERT, WavLM and their relatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from ....foundation.assets import resolve
from ...llm.pretrained import load_pretrained, reading_from
from ...losses.answer_loss import zero_through
from .padding import RealFrames, watch_convolutions, watch_first_norm
from .speech_encoder import SpeechEncoder, config_settings, frame_mask
from .time_masks import time_masks


@dataclass(frozen=True)
class Waveform:
    """Treats the raw waveform as a feature matrix with one row.

    Attributes:
        normalize: Normalise each clip to zero mean and unit variance, as some checkpoints expect.
    """

    normalize: bool

    def __call__(self, waveform: Tensor) -> Tensor:
        """Maps a waveform (samples,) to (1, samples)."""
        if self.normalize:
            variance = waveform.var(unbiased=False)
            waveform = (waveform - waveform.mean()) / torch.sqrt(variance + 1e-7)
        return waveform[None].float()


@dataclass(frozen=True)
class ConvolutionLength:
    """Counts the frames that a stack of unpadded convolutions produces from a waveform.

    Attributes:
        kernels: Kernel sizes, first layer first.
        strides: Their strides.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, length: int) -> int:
        """Counts the frames of a number of samples, at least one."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = (length - kernel) // stride + 1
        return max(length, 1)

    @property
    def shortest(self) -> int:
        """Returns the minimum number of samples for one frame."""
        length = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            length = (length - 1) * stride + kernel
        return length


#: Architectures tested to give the same frames alone and in a batch.
FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "wav2vec2-conformer")


class HFEncoder(SpeechEncoder):
    """A waveform encoder of transformers with wav2vec 2.0's convolutional front.

    Architectures: wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447), WavLM (2110.13900), data2vec (2202.03555),
    UniSpeech (2101.07597), UniSpeech-SAT (2110.05752) and wav2vec 2.0 with Conformer layers (2010.05171).

    A clip's frames are those of the clip alone, whatever else is in the batch: group-norm statistics, convolutions over
    positions and attention see only the clip's real frames.

    An encoder is trained without LayerDrop (which would shift the meaning of ``layer``) and with the running statistics
    of its batch norms; SpecAugment, if the checkpoint's configuration has it, is drawn for each clip at its own length.

    Args:
        source: Hub id or folder, e.g. ``facebook/hubert-base-ls960``.
        layer: The hidden layer that gives the frames; -1 is the last, 0 the input of the first Transformer layer. A
            final norm over the whole stack (the large models' ``do_stable_layer_norm``) is not applied.

    Raises:
        ValueError: If the checkpoint has another architecture, or no such layer.
    """

    kind = "hf"

    def __init__(self, source: str, layer: int = -1) -> None:
        super().__init__()
        self.source = source
        self.layer = layer
        path = resolve(source)
        with reading_from("HFEncoder", source):
            self.config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if self.config.model_type not in FAMILIES:
            raise ValueError(
                f"HFEncoder: '{source}' is a {self.config.model_type} model; allowed are {', '.join(FAMILIES)} "
                "(for Whisper take WhisperEncoder)"
            )
        layers = self.config.num_hidden_layers
        if not -layers - 1 <= layer <= layers:
            raise ValueError(f"HFEncoder: layer {layer} is not in -{layers + 1} .. {layers}")
        with reading_from("HFEncoder", source):
            self._feature_extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
        self._frames_of = ConvolutionLength(tuple(self.config.conv_kernel), tuple(self.config.conv_stride))
        self._first_layer = ConvolutionLength(self._frames_of.kernels[:1], self._frames_of.strides[:1])
        self._real_inside, self._real = RealFrames(), RealFrames()
        self.sampling_rate = int(self._feature_extractor.sampling_rate)
        self.feature_dim = 1
        self.frame_rate = self.sampling_rate / math.prod(self.config.conv_stride)
        self.output_dim = int(self.config.hidden_size)
        self.net: Any = None

    @property
    def convention(self) -> str:
        """Names the layer that gives the frames."""
        return f"layer={self.layer}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Returns the checkpoint's configuration and its feature extractor's."""
        return {"config": config_settings(self.config), "features": self._feature_extractor.to_dict()}

    def extractor(self) -> Callable[[Tensor], Tensor]:
        """Returns the waveform itself, normalised if the checkpoint expects it."""
        return Waveform(bool(getattr(self._feature_extractor, "do_normalize", False)))

    def length_rule(self) -> Callable[[int], int]:
        """Returns the convolutions' arithmetic."""
        return self._frames_of

    def load(self) -> None:
        """Reads the weights."""
        if self.net is None:
            path, dtype = resolve(self.source), torch.get_default_dtype()
            self.net = load_pretrained(AutoModel, path, dtype, layerdrop=0.0)
            watch_first_norm(self.net, self._real_inside)
            watch_convolutions(self.net.encoder, self._real)

    def train(self, mode: bool = True) -> Self:
        """Sets train or eval mode; batch norms keep using their running statistics."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.eval()
        return self

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes (N, 1, samples) to (N, T, hidden_size) and lengths.

        Raises:
            RuntimeError: If :meth:`load` has not been called.
        """
        if self.net is None:
            raise RuntimeError("HFEncoder.load() must come before forward()")
        samples = lengths.clamp(min=self._frames_of.shortest)
        waveform = features[:, 0].to(next(self.net.parameters()).dtype)
        missing = self._frames_of.shortest - waveform.shape[1]
        if missing > 0:  # a clip too short for one frame is padded with silence to one
            waveform = nn.functional.pad(waveform, (0, missing))
        out_lengths = _each(self._frames_of, samples)
        with self._real_inside.of(_each(self._first_layer, samples)), self._real.of(out_lengths):
            out = self.net(
                waveform,
                attention_mask=frame_mask(samples, waveform.shape[1]).long(),
                mask_time_indices=self._hidden_frames(out_lengths, self._frames_of(waveform.shape[1])),
                output_hidden_states=True,
            )
        frames: Tensor = out.hidden_states[self.layer]
        if self.training:  # layers above the one in use, and a mask vector that no clip drew
            frames = frames + zero_through([self.net], frames)
        return frames * frame_mask(out_lengths, frames.shape[1])[:, :, None], out_lengths

    def _hidden_frames(self, lengths: Tensor, size: int) -> Tensor | None:
        """Draws SpecAugment's (N, T) mask while the encoder trains, if the checkpoint has it."""
        config = self.config
        if not self.training or not getattr(config, "apply_spec_augment", True) or not config.mask_time_prob > 0:
            return None
        share, span, fewest = config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
        return time_masks(lengths.tolist(), size, share, span, fewest).to(lengths.device)


def _each(rule: Callable[[int], int], lengths: Tensor) -> Tensor:
    """Applies a length rule to every clip, (N,) to (N,)."""
    return torch.tensor([rule(length) for length in lengths.tolist()], device=lengths.device)

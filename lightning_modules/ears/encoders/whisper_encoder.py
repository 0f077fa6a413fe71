"""Whisper's encoder at the clips' true length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, WhisperFeatureExtractor

from ....foundation.assets import resolve
from ...llm.pretrained import load_pretrained, reading_from
from .speech_encoder import SpeechEncoder, config_settings, frame_mask


@dataclass(frozen=True)
class LogMel:
    """Computes the log-mel spectrogram of one clip, as Whisper's own feature extractor does.

    Attributes:
        feature_extractor: The checkpoint's feature extractor.
        padded: Pad (or cut) to 30 s, as Whisper and LLaMA-Omni do; otherwise keep the clip's own length.
    """

    feature_extractor: WhisperFeatureExtractor
    padded: bool

    def __call__(self, waveform: Tensor) -> Tensor:
        """Maps a waveform (samples,) at 16 kHz to (mel, F)."""
        # The STFT reflects half a window at each end and needs that much signal.
        missing = self.feature_extractor.n_fft - waveform.shape[0]
        if missing > 0:
            waveform = torch.nn.functional.pad(waveform, (0, missing))
        out = self.feature_extractor(
            waveform.numpy(),
            sampling_rate=self.feature_extractor.sampling_rate,
            padding="max_length" if self.padded else "longest",
            truncation=self.padded,
            return_tensors="pt",
        )
        features: Tensor = out["input_features"][0].float()
        return features


def _halved(length: int) -> int:
    """Counts the frames after Whisper's second convolution (kernel 3, stride 2, padding 1)."""
    return (length + 1) // 2


class WhisperEncoder(SpeechEncoder):
    """Whisper's encoder (arXiv 2212.04356), 50 frames per second.

    transformers' own ``WhisperEncoder`` accepts 30 s windows only. Here positions are cut to the batch's longest clip
    and attention is masked beyond each clip's end, so that a 2 s question costs 100 frames instead of 1500 and a
    clip's frames do not depend on its neighbours in the batch.

    Args:
        source: Hub id, folder or ``asset:`` name of a Whisper checkpoint.
        padded: LLaMA-Omni's released convention: every clip is padded to 30 s and keeps all 1500 frames, silence
            included (300 LLM positions per clip at 5 frames per position).
    """

    kind = "whisper"

    def __init__(self, source: str = "asset:whisper-tiny.en", padded: bool = False) -> None:
        super().__init__()
        self.source = source
        self.padded = padded
        path = resolve(source)
        with reading_from("WhisperEncoder", source):
            self.config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            self._feature_extractor = WhisperFeatureExtractor.from_pretrained(path)
        self.sampling_rate = int(self._feature_extractor.sampling_rate)
        self.feature_dim = int(self.config.num_mel_bins)
        self.frame_rate = self.sampling_rate / self._feature_extractor.hop_length / 2
        self.output_dim = int(self.config.d_model)
        self.net: Any = None

    @property
    def convention(self) -> str:
        """Says whether clips are padded to 30 s."""
        return "padded" if self.padded else "true-length"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Returns the checkpoint's configuration and its feature extractor's."""
        return {"config": config_settings(self.config), "features": self._feature_extractor.to_dict()}

    def extractor(self) -> Callable[[Tensor], Tensor]:
        """Returns log-mel features."""
        return LogMel(self._feature_extractor, self.padded)

    def length_rule(self) -> Callable[[int], int]:
        """Makes one of two mel frames (20 ms)."""
        return _halved

    def load(self) -> None:
        """Reads the encoder's weights; the decoder is dropped."""
        if self.net is None:
            path = resolve(self.source)
            self.net = load_pretrained(AutoModel, path, torch.get_default_dtype()).encoder

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes (N, mel, F) to (N, ceil(F / 2), d_model) and lengths.

        Raises:
            RuntimeError: If :meth:`load` has not been called.
            ValueError: If a clip is longer than the encoder's positions (30 s).
        """
        if self.net is None:
            raise RuntimeError("WhisperEncoder.load() must come before forward()")
        net = self.net
        frames = _halved(features.shape[-1])
        if frames > net.max_source_positions:
            limit = net.max_source_positions / self.frame_rate
            raise ValueError(f"a clip of {frames / self.frame_rate:.1f} s is longer than Whisper's {limit:.0f} s")
        hidden = torch.nn.functional.gelu(net.conv1(features.to(net.conv1.weight.dtype)))
        # The second convolution must see zeros beyond a clip's end, as it does when the clip is alone.
        hidden = hidden * frame_mask(lengths, hidden.shape[-1])[:, None, :]
        hidden = torch.nn.functional.gelu(net.conv2(hidden)).transpose(1, 2)
        hidden = hidden + net.embed_positions.weight[:frames]
        hidden = torch.nn.functional.dropout(hidden, p=net.dropout, training=self.training)
        out_lengths = (lengths + 1) // 2
        mask = frame_mask(out_lengths, frames)
        attention = None if bool(mask.all()) else mask[:, None, None, :].expand(-1, 1, frames, -1)
        for layer in net.layers:
            hidden = layer(hidden, attention)
        out: Tensor = net.layer_norm(hidden) * mask[:, :, None]
        return out, out_lengths

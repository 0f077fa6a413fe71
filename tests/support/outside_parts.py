"""Parts of a speech LLM as a user writes them in a module of their own: all that each contract asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from textkeep.lightning_modules import AdapterStart, Adaptor, SpeechEncoder, SpeechGate, SpeechLLM


def loudness(waveform: Tensor) -> Tensor:
    """Waveform (samples,) to features (1, F), one a hundredth of a second."""
    return waveform[: len(waveform) // 160 * 160].reshape(1, -1, 160).square().mean(dim=2)


def same(length: int) -> int:
    return length


class LoudnessEncoder(SpeechEncoder):
    """Frames that tell how loud it is."""

    kind = "loudness"

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.source = "nowhere"
        self.sampling_rate, self.feature_dim, self.frame_rate, self.output_dim = 16000, 1, 100.0, width
        self.net: Any = None

    @property
    def convention(self) -> str:
        return "plain"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"width": self.output_dim}

    def extractor(self) -> Callable[[Tensor], Tensor]:
        return loudness

    def length_rule(self) -> Callable[[int], int]:
        return same

    def load(self) -> None:
        if self.net is None:
            self.net = nn.Linear(1, self.output_dim)
            nn.init.constant_(self.net.weight, 2.0)
            nn.init.zeros_(self.net.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(features.transpose(1, 2)), lengths


class MeanAdaptor(Adaptor):
    """Each position is the mean of its frames."""

    def build(self, input_dim: int, output_dim: int) -> None:
        self.output = nn.Linear(input_dim, output_dim, bias=False)

    def project(self, stacked: Tensor, lengths: Tensor) -> Tensor:
        return self.output(stacked.unflatten(-1, (self.stack, -1)).mean(dim=2))


class FirstClip(SpeechGate):
    """LoRA acts on the first row of a batch."""

    def open_at(self, audio_mask: Tensor, length: int) -> Tensor:
        return (torch.arange(len(audio_mask), device=audio_mask.device) == 0)[:, None].expand(-1, length)


class ConstantStart(AdapterStart):
    """A begins with one number everywhere."""

    moves = False

    def __init__(self, value: float) -> None:
        self.value = value

    @torch.no_grad()
    def initialize(self, model: SpeechLLM, layers: dict[str, Any]) -> None:
        for layer in layers.values():
            layer.lora_A["default"].weight.fill_(self.value)

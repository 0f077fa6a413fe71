"""Tiny SpeechLLMs with adapters that do something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.tuning import Tuning


def build(tuning: Tuning, llm: Path, whisper: Path, **options: Any) -> SpeechLLM:
    torch.manual_seed(0)
    model = SpeechLLM(
        str(llm), WhisperEncoder(str(whisper)), ConcatMLP(stack=5, hidden=16), tuning, max_new_tokens=4, **options
    )
    model.configure_model()
    return model.eval()


def wake(model: SpeechLLM) -> SpeechLLM:
    """As after some training: B is no longer zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in lora_layers(model.llm).values():
            up = layer.lora_B["default"].weight
            up.copy_(0.3 * torch.randn(up.shape, generator=generator))
    return model

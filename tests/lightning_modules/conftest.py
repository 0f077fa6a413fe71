"""A small SpeechLLM on tiny random models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder


@pytest.fixture
def model(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> SpeechLLM:
    torch.manual_seed(0)
    module = SpeechLLM(
        llm=str(tiny_llm_dir),
        encoder=WhisperEncoder(str(tiny_whisper_dir)),
        adaptor=ConcatMLP(stack=5, hidden=16),
        max_new_tokens=4,
    )
    module.configure_model()
    return module

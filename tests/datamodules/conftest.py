"""Real clips and manifests in a temporary folder, and a front end without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

RATE = 16000


@dataclass
class EnergyFrontEnd:
    """Energy of 10 ms frames in place of a log-mel spectrogram; ten frames make one position (10 Hz)."""

    tokenizer: PreTrainedTokenizerBase
    sampling_rate: int = RATE
    feature_dim: int = 2
    positions_per_second: float = 10.0
    fingerprint: str = "energy"
    text_twins: bool = False
    vocabulary: int | None = None

    def extract(self, waveform: Tensor) -> Tensor:
        frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        return torch.stack([frames.pow(2).mean(dim=1), frames.abs().amax(dim=1)])

    def num_positions(self, feature_length: int) -> int:
        return max(1, feature_length // 10)


@pytest.fixture
def front_end(tiny_tokenizer: PreTrainedTokenizerBase) -> EnergyFrontEnd:
    return EnergyFrontEnd(tiny_tokenizer)


def tone(seconds: float, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


ManifestMaker = Callable[..., Path]


@pytest.fixture
def make_manifest(tmp_path: Path) -> ManifestMaker:
    """Write a manifest of ``count`` spoken questions with their clips, of 0.5 s to 2.5 s."""

    def make(count: int = 12, name: str = "questions", suffix: str = "wav", **extra: Any) -> Path:
        (tmp_path / "clips").mkdir(exist_ok=True)
        lines = []
        for i in range(count):
            seconds = 0.5 + 2.0 * (i * 7 % count) / count
            clip = f"clips/{name}-{i}.{suffix}"
            soundfile.write(tmp_path / clip, tone(seconds, frequency=200 + 10 * i), RATE)
            record = {"id": f"{name}-{i}", "question": f"What is {i} plus {i}?", "answers": [str(2 * i)]}
            lines.append(json.dumps(record | {"audio": clip, "seconds": round(seconds, 2)} | extra))
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest of these lines (objects or raw text)."""

    def write(*lines: Any, name: str = "m.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    return write

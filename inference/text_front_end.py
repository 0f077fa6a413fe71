"""What the data needs of a model that cannot listen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class TextFrontEnd:
    """Tokenizer of a text LLM in the shape of a speech front end (``datamodules.SpeechFrontEnd``).

    Attributes:
        tokenizer: Of the LLM.
        vocabulary: Rows of its embedding matrix.
    """

    tokenizer: Any
    vocabulary: int | None = None
    sampling_rate: int = 16000
    feature_dim: int = 1
    positions_per_second: float = 12.5
    fingerprint: str = "text"
    text_twins: bool = False

    def extract(self, waveform: Any) -> Any:
        """Gives one frame of nothing; no speech comes here."""
        return torch.zeros(1, 1)

    def num_positions(self, feature_length: int) -> int:
        """Gives one position."""
        return 1

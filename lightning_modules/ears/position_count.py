"""How many LLM positions a clip takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PositionCount:
    """Feature length to number of positions, through encoder and adaptor; picklable, without weights.

    Attributes:
        encoder: Feature length to frames.
        adaptor: Frames to positions.
    """

    encoder: Callable[[int], int]
    adaptor: Callable[[int], int]

    def __call__(self, feature_length: int) -> int:
        """Counts the positions of a clip, at least 1."""
        return self.adaptor(self.encoder(feature_length))

"""The contract of masks over single weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..importance_user import ImportanceUser

#: Number of set bits of each byte.
_POPCOUNT = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8)


class WeightMask(ImportanceUser, ABC):
    """Which weights of the LLM are protected: one bit per weight, chosen once and kept in every checkpoint."""

    def __init__(self) -> None:
        self._bits: dict[str, Tensor] | None = None

    @abstractmethod
    def choose(self, llm: nn.Module) -> dict[str, Tensor]:
        """Chooses the weights; called once, when no measurement is outstanding.

        Returns:
            Name of a parameter inside the LLM -> bits (uint8, CPU) of its flattened (out, in) mask, as
            ``numpy.packbits`` packs them.
        """

    def bits(self, llm: nn.Module) -> dict[str, Tensor]:
        """Returns the mask of the run: chosen at the first call, or restored from the checkpoint."""
        if self._bits is None:
            self._bits = self.choose(llm)
        return self._bits

    def describe(self, layers: int) -> str:
        """Counts the protected weights."""
        return f"{sum(map(set_bits, (self._bits or {}).values())):,} weights do not move"

    def state_dict(self) -> dict[str, Any]:
        """Saves the bits: an eighth of a byte per weight, besides the 12 for the weight and AdamW's moments."""
        return {} if self._bits is None else {"bits": self._bits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the bits."""
        self._bits = state.get("bits", self._bits)


def set_bits(packed: Tensor) -> int:
    """Counts the bits that are set in packed bits."""
    return int(_POPCOUNT[packed.long()].sum())

"""The control for a mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ....importance import Snapshot
from ..importance_user import ImportanceRequest
from .weight_mask import WeightMask, set_bits


class RandomMask(WeightMask):
    """As many weights of each matrix as another mask protects, chosen at random.

    If it preserves text equally well, the number of protected weights is what matters, not the choice.

    Args:
        of: The mask under test, which gives the numbers.
        seed: Of the choice.
    """

    def __init__(self, of: WeightMask, seed: int = 0) -> None:
        super().__init__()
        self.of = of
        self.seed = seed

    @property
    def request(self) -> ImportanceRequest | None:
        """Requests what the inner mask requests."""
        return self.of.request

    @property
    def waiting(self) -> bool:
        """Waits for the inner mask, unless the choice came from a checkpoint."""
        return self._bits is None and self.of.waiting

    def use(self, snapshot: Snapshot) -> None:
        """Passes the measurement on."""
        self.of.use(snapshot)

    def choose(self, llm: nn.Module) -> dict[str, Tensor]:
        """Draws without replacement, matrix by matrix."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = {}
        for name, bits in self.of.bits(llm).items():
            mask = np.zeros(llm.get_parameter(name).numel(), dtype=bool)
            mask[torch.randperm(len(mask), generator=generator)[: set_bits(bits)].numpy()] = True
            drawn[name] = torch.from_numpy(np.packbits(mask))
        return drawn

    def describe(self, layers: int) -> str:
        """Describes the inner mask, which protects as many."""
        return f"{self.of.describe(layers)}, chosen at random"

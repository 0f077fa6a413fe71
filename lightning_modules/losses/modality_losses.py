"""The answer loss of an evaluation, by modality, exact over ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ...foundation.ranks import Ranks


class ModalityLosses:
    """Means over all answer tokens of all ranks, for speech and for text.

    They are summed as Python numbers (float64): tensors of a module are converted to the run's precision, and bfloat16
    cannot count beyond 256.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def update(self, losses: Tensor, tokens: Tensor, modality: Sequence[str]) -> None:
        """Adds a batch.

        Args:
            losses: (B,) summed answer losses, nats.
            tokens: (B,) numbers of answer tokens.
            modality: ``speech`` or ``text`` of each row.
        """
        for loss, count, name in zip(losses.tolist(), tokens.tolist(), modality, strict=True):
            total, answered = self._sums[name]
            self._sums[name] = total + loss, answered + count

    def compute(self) -> dict[str, Tensor]:
        """Returns modality -> nats per answer token, for those that occurred on any rank, and resets."""
        parts = Ranks().gather(dict(self._sums))
        self._sums.clear()
        found = {}
        for name in ("speech", "text"):
            sums = [part[name] for part in parts if name in part]
            if tokens := sum(count for _, count in sums):
                found[name] = torch.tensor(sum(loss for loss, _ in sums) / tokens, dtype=torch.float32)
        return found

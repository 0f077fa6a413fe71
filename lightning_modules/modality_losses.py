"""The answer loss of an evaluation, by modality, exact over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric


class ModalityLosses(nn.Module):
    """Means over all answer tokens of all ranks, for speech and for text."""

    def __init__(self) -> None:
        super().__init__()
        self.speech, self.text = MeanMetric(), MeanMetric()

    def update(self, losses: Tensor, tokens: Tensor, modality: Sequence[str]) -> None:
        """Takes a batch.

        Args:
            losses: (B,) summed answer losses, nats.
            tokens: (B,) numbers of answer tokens.
            modality: ``speech`` or ``text`` of each row.
        """
        for loss, count, name in zip(losses, tokens, modality, strict=True):
            self._means()[name].update(loss / count.clamp(min=1), count)

    def compute(self) -> dict[str, Tensor]:
        """Modality -> nats per answer token, of those that occurred; and a new start."""
        found = {}
        for name, metric in self._means().items():
            value = metric.compute()  # synchronised over ranks; one that saw no such row adds weight zero
            if not torch.isnan(value):
                found[name] = value
            metric.reset()
        return found

    def _means(self) -> dict[str, MeanMetric]:
        return {"speech": self.speech, "text": self.text}

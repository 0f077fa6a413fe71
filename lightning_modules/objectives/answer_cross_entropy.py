"""The standard objective."""

from __future__ import annotations

from torch import Tensor

from ..contract import Batch, SpeechModel
from .objective import Objective


class AnswerCrossEntropy(Objective):
    """Cross-entropy of the answer's tokens (end of turn included) given the question, spoken or written."""

    name = "answer_ce"

    def needs_whole(self) -> str | None:
        """Names nothing."""
        return None

    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums the loss over the batch's answer tokens."""
        losses, tokens = model.answer_losses(batch)
        return losses.sum(), tokens.sum()

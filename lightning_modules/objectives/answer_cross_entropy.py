"""The usual objective."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..contract import SpeechModel
from .objective import Objective


class AnswerCrossEntropy(Objective):
    """Cross-entropy of the answer's tokens (end of turn included) given the question, spoken or written."""

    name = "answer_ce"

    def forward(self, model: SpeechModel, batch: Any) -> tuple[Tensor, Tensor]:
        """Summed over the batch's answer tokens."""
        losses, tokens = model.answer_losses(batch)
        return losses.sum(), tokens.sum()

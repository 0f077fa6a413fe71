"""The usual objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .objective import Objective

if TYPE_CHECKING:
    from ..speech_llm import SpeechLLM


class AnswerCrossEntropy(Objective):
    """Cross-entropy of the answer's tokens (end of turn included) given the question, spoken or written."""

    name = "answer_ce"

    def forward(self, model: SpeechLLM, batch: Any) -> tuple[Tensor, Tensor]:
        """Summed over the batch's answer tokens."""
        losses, tokens = model.answer_losses(batch)
        return losses.sum(), tokens.sum()

"""Objectives: what a training step asks of the model."""

from .answer_cross_entropy import AnswerCrossEntropy
from .ctc_alignment import CTCAlignment
from .objective import Objective

__all__ = ["AnswerCrossEntropy", "CTCAlignment", "Objective"]

"""Objectives: what a training step asks of the model."""

from .answer_cross_entropy import AnswerCrossEntropy
from .ctc_alignment import CTCAlignment
from .objective import Objective
from .total import weighed_total

__all__ = ["AnswerCrossEntropy", "CTCAlignment", "Objective", "weighed_total"]

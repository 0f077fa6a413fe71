"""Objectives: what a training step minimises."""

from .answer_cross_entropy import AnswerCrossEntropy
from .cached_teacher import CachedTeacher
from .ctc_alignment import CTCAlignment
from .ewc import EWC
from .l2sp import L2SP
from .objective import Objective
from .penalty import Penalty
from .plain_text import PlainTextDistillation, PlainTextReplay
from .teacher import LiveTeacher, Teacher
from .text_twin_distillation import TextTwinDistillation

__all__ = [
    "EWC",
    "L2SP",
    "AnswerCrossEntropy",
    "CTCAlignment",
    "CachedTeacher",
    "LiveTeacher",
    "Objective",
    "Penalty",
    "PlainTextDistillation",
    "PlainTextReplay",
    "Teacher",
    "TextTwinDistillation",
]

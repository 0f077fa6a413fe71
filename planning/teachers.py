"""What a rehearsal uses instead of answers on disk, and what stays beside the model throughout."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ..lightning_modules import SpeechLLM
from ..lightning_modules.contract import Batch, SpeechModel
from ..lightning_modules.losses.divergence import top_divergence
from ..lightning_modules.objectives.cached_teacher import CachedTeacher
from ..lightning_modules.objectives.teacher import Comparison, LiveTeacher, Teacher
from ..lightning_modules.objectives.weight_pull import WeightPull
from .meter import STRENGTHS, TEACHER, Meter


class AnswersOfAShape(Teacher):
    """A cached teacher's answers, in shape only.

    Args:
        top_k: Tokens kept at each place.
    """

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def read(self, model: SpeechModel, texts: Batch, temperature: float) -> Comparison:
        """Returns as many answers as the batch asks for."""
        places = int((texts.labels != -100).sum())
        answers = torch.zeros(places, self.top_k)
        tokens = torch.zeros(places, self.top_k, dtype=torch.int64)
        return partial(top_divergence, answers, tokens, temperature=temperature)


def stand_beside(model: SpeechLLM, meter: Meter) -> None:
    """Makes what the objectives keep beside the model for a whole fit: an untouched copy, strengths of penalties.

    Args:
        model: Of shapes.
        meter: Counts it.
    """
    pulls = [term for term in model.objectives.penalties if isinstance(term, WeightPull)]
    teachers: list[Any] = [term for term in model.objectives.over_tokens if hasattr(term, "teacher")]
    for term in teachers:
        if isinstance(term.teacher, CachedTeacher):
            term.teacher = AnswersOfAShape(term.teacher.top_k)
    live = any(isinstance(term.teacher, LiveTeacher) for term in teachers) and model.reference.needs_copy
    if live or pulls:
        with meter.counting(TEACHER):
            model.reference.copy()
    with meter.counting(STRENGTHS):
        for pull in pulls:
            pull.start(model)

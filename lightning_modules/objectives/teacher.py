"""Where the targets of distillation come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from torch import Tensor

from ..contract import Batch, SpeechModel
from ..losses.divergence import divergence

Comparison = Callable[[Tensor], Tensor]
"""Maps the student's logits (N, V) at N answer tokens to the divergence from the teacher (N,), nats."""


class Teacher(ABC):
    """What the untouched LLM would say after the written question."""

    def start(self, model: SpeechModel, temperature: float) -> None:  # noqa: B027 - a hook
        """Prepares; called at the start of a fit, on every rank."""

    @abstractmethod
    def read(self, model: SpeechModel, texts: Batch, temperature: float) -> Comparison:
        """Has the teacher read written questions with their answers.

        Args:
            model: The student.
            texts: A text batch; its N supervised tokens, row by row, are compared.
            temperature: Of both distributions.
        """


class LiveTeacher(Teacher):
    """The untouched LLM itself: one more forward pass per step, without gradients.

    Under LoRA or with a frozen LLM, it is the trained model with LoRA off and takes no memory. Otherwise it is
    a frozen copy in the weights' own type: 0.5 GB for SmolLM2-135M in float32, 16 GB for an 8B model in bfloat16.
    """

    def start(self, model: SpeechModel, temperature: float) -> None:
        """Keeps the copy, if there is one, for the whole fit."""
        model.reference.resident = True

    def read(self, model: SpeechModel, texts: Batch, temperature: float) -> Comparison:
        """Returns exact distributions, over the whole vocabulary."""
        found = model.reference.untouched_logits(texts)
        return partial(divergence, found.logits[found.targets != -100], temperature=temperature)

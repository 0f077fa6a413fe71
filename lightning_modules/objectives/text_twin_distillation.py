"""The model answers as the untouched LLM does."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import Batch, SpeechModel
from ..losses.text_twins import as_text
from .objective import Objective
from .teacher import LiveTeacher, Teacher


class TextTwinDistillation(Objective):
    """KL(untouched LLM reading the question || model hearing it), and the same with the model reading it.

    Cross-modal distillation (arXiv 2509.14930: loss = CE + lambda tau^2 KL with lambda 0.5, tau 2, on spoken (S->T) and
    written (T->T) questions). As the only objective, it is the training of ultravox and of SALAD (arXiv 2510.13632),
    which calls the two divergences misalignment and forgetting. At every answer token the teacher's distribution is the
    target (forward KL), times tau squared as in Hinton et al. (arXiv 1503.02531).

    A batch of speech has both terms, the second on its text twin; a batch of text only the second. Rows whose question
    is not available as text are left out and counted (``train/distillation_skipped``).

    Args:
        weight: Lambda, the factor in the total.
        speech: Factor of the S->T term.
        text: Factor of the T->T term; 0 saves the model's pass over the text twins.
        temperature: Tau.
        end_of_turn: Whether the token that ends the answer is compared as well.
        teacher: ``LiveTeacher`` (default) or ``CachedTeacher``.
    """

    name = "distillation"
    needs_twins = True

    def __init__(
        self,
        weight: float = 0.5,
        speech: float = 1.0,
        text: float = 1.0,
        temperature: float = 2.0,
        end_of_turn: bool = True,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(weight)
        if speech < 0 or text < 0 or speech + text == 0:
            raise ValueError(
                f"TextTwinDistillation: speech is {speech}, text is {text}: at least 0 each and one positive is allowed"
            )
        if temperature <= 0:
            raise ValueError(f"TextTwinDistillation: temperature is {temperature}, but must be positive")
        self.factors = {"speech": speech, "text": text}
        self.temperature = temperature
        self.end_of_turn = end_of_turn
        self.teacher = teacher or LiveTeacher()

    def needs_whole(self) -> str | None:
        """Names a teacher that runs the LLM outside of steps."""
        return None if isinstance(self.teacher, LiveTeacher) else type(self.teacher).__name__

    def start(self, model: SpeechModel) -> None:
        """Lets the teacher prepare."""
        self.teacher.start(model, self.temperature)

    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums the loss over the batch's answer tokens; both terms of a spoken question are over the same tokens."""
        texts = as_text(batch)
        compare = self.teacher.read(model, texts, self.temperature)
        students = {"text": batch} if texts is batch else {"speech": batch, "text": texts}
        with_text = (texts.labels != -100).any(dim=1)
        counted = self._counted(texts.labels)
        tokens = counted.sum()
        total = torch.zeros((), dtype=torch.float32, device=tokens.device)
        self.figures = {"skipped": (~with_text).sum()}
        for name, student in students.items():
            if self.factors[name] == 0 and len(students) > 1:
                continue
            found = model.answer_logits(student)
            compared = (found.targets != -100) & with_text[:, None]
            loss = self.temperature**2 * compare(found.logits[compared])[counted].sum()
            self.figures[name] = loss.detach() / tokens.clamp(min=1)
            total = total + self.factors[name] * loss
        return total, tokens

    def _counted(self, labels: Tensor) -> Tensor:
        """Returns which of the N supervised tokens count (N,)."""
        supervised = labels != -100
        if self.end_of_turn:
            return torch.ones(int(supervised.sum()), dtype=torch.bool, device=labels.device)
        place = torch.arange(labels.shape[1], device=labels.device)
        last = torch.where(supervised, place, -1).amax(dim=1, keepdim=True)
        return (place != last)[supervised]

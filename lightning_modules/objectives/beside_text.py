"""Objectives that read their own passages beside each batch."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from ...foundation.errors import UserError
from ..contract import Batch, SpeechModel
from .objective import Objective


class BesideText(Objective):
    """A loss on passages of text, drawn anew for each batch; subclasses define the loss.

    The draw depends only on the optimizer step, the ids of the batch and ``seed``: a resumed run reads the same
    passages as an uninterrupted one, and ranks read different passages, equally many each. The mean over the passages'
    tokens is weighted as if it were over the batch's answer tokens: one nat per text token counts as ``weight`` nats
    per answer token, however long passages and answers are.

    Args:
        text: A set of ``data.sets``, a .txt file (passages between empty lines), a manifest, or an embedded set. Never
            use text on which the run is measured.
        weight: Factor in the total.
        passages: Number of passages read beside each batch.
        tokens: Plain text is cut after this many; None takes whole passages.
        seed: Of the draw.
    """

    def __init__(
        self,
        text: str = "plain-text/rehearsal",
        weight: float = 1.0,
        passages: int = 2,
        tokens: int | None = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        name = type(self).__name__
        if passages < 1:
            raise UserError(f"{name}.passages: {passages} (allowed: at least 1)")
        if tokens is not None and tokens < 2:
            raise UserError(f"{name}.tokens: {tokens} (allowed: at least 2, or null for whole passages)")
        self.text = text
        self.passages = passages
        self.tokens = tokens
        self.seed = seed
        self._read: Batch | None = None  # kept alive during the step, which tells batches apart by identity

    def needs_whole(self) -> str | None:
        """Names nothing: every rank reads equally many passages."""
        return None

    def start(self, model: SpeechModel) -> None:
        """Reads the text.

        Raises:
            UserError: If there is none, or too little.
        """
        name = type(self).__name__
        data: Any = getattr(model.trainer, "datamodule", None)
        if not hasattr(data, "evaluation_set"):
            raise UserError(f"{name} needs the data module SpeechTextData, got {data!r}")
        try:
            found = data.evaluation_set(self.text)
        except (OSError, ValueError) as error:
            raise UserError(f"{name}.text: {error}") from error
        self._examples = [example for example in found if example.has("text") and example.target]
        if len(self._examples) < self.passages:
            found = f"{self.text} has {len(self._examples)} passages, and a step reads {self.passages}"
            raise UserError(f"{name}.text: {found} (allowed: at least as many)")

    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the mean over the passages' tokens times the number of the batch's answer tokens, and that number."""
        data: Any = model.trainer.datamodule  # type: ignore[attr-defined]
        made = data.factory().batches(self._drawn(model, batch), "text", self.passages, tokens=self.tokens)
        self._read = text = made[0].to(model.device)
        answers = (batch.labels[:, 1:] != -100).sum()
        return self.mean(model, text) * answers, answers

    @abstractmethod
    def mean(self, model: SpeechModel, text: Batch) -> Tensor:
        """Returns the mean loss over the tokens of a text batch (scalar, with gradient), nats."""

    def _drawn(self, model: SpeechModel, batch: Batch) -> list[Any]:
        key = zlib.crc32("\n".join(batch.ids).encode())
        rng = np.random.default_rng([self.seed, model.trainer.global_step, key])
        return [self._examples[place] for place in rng.choice(len(self._examples), self.passages, replace=False)]

"""The LLM as it was before it learned to listen: teacher of distillation, yardstick of forgetting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from transformers import AutoModelForCausalLM

from ...foundation.decoder import eval_mode
from ..contract import Batch
from ..losses.answer_loss import AnswerLogits, predict_answers
from .pretrained import load_pretrained, weights_are_read


class ReferenceLLM:
    """The untouched LLM. Where the tuning can switch itself off (LoRA) it is the same model, else a frozen copy.

    A copy is loaded when it is first asked for, in the type and on the device of the trained one, and is no part of
    the module: no checkpoint, optimizer or DDP sees it.

    Args:
        source: Folder or hub id of the untouched weights.
        llm: The model that is tuned, before the tuning prepares it.
        untouched: Gives a context in which the tuned model is the untouched one, or None if there is none
            (``Tuning.untouched``).

    Attributes:
        fingerprint: Names the untouched weights.
        resident: Whether the copy is needed at every step, so that :meth:`release` keeps it.
    """

    def __init__(
        self, source: str, llm: nn.Module, untouched: Callable[[nn.Module], AbstractContextManager[None] | None]
    ) -> None:
        self._source, self._llm, self._untouched = source, llm, untouched
        self._copy: Any = None
        self.fingerprint = weights_fingerprint(llm)
        self.resident = False

    @property
    def needs_copy(self) -> bool:
        """Whether it costs the memory of a second model."""
        return self._untouched(self._llm) is None

    @contextmanager
    def active(self) -> Iterator[Any]:
        """Gives the untouched LLM in eval mode, without gradients, while the context lasts."""
        switched_off = self._untouched(self._llm)
        with torch.no_grad():
            if switched_off is None:
                yield self._loaded()
                return
            with eval_mode(self._llm), switched_off:
                yield self._llm

    def copy(self) -> Any:
        """Gives a frozen copy of the untouched LLM, also where the tuning could do without one."""
        return self._loaded()

    def untouched_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a text batch."""
        with self.active() as llm:
            embeds = llm.get_input_embeddings()(batch.input_ids)
            return predict_answers(llm, embeds, batch.attention_mask, batch.labels)

    def release(self) -> None:
        """Frees the memory of the copy, unless something needs it at every step."""
        if not self.resident:
            self._copy = None

    def _loaded(self) -> Any:
        like = next(self._llm.parameters())
        if self._copy is None:
            with isolate_rng():  # a run that loads it must draw the same numbers as one that does not
                copy = load_pretrained(AutoModelForCausalLM, self._source, like.dtype)
            self._copy = copy.requires_grad_(False).eval()
        return self._copy.to(like.device)


def weights_fingerprint(llm: nn.Module, samples: int = 1024) -> str:
    """Hashes what tells models apart in milliseconds: names, shapes and some evenly spaced values of each weight.

    A model of shapes alone (:func:`shapes_only`) has no values.
    """
    digest = hashlib.sha256()
    for name, parameter in llm.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if weights_are_read():
            flat = parameter.detach().flatten()
            some = flat[:: max(1, flat.numel() // samples)].to("cpu", torch.float32)
            digest.update(some.numpy().tobytes())
    return digest.hexdigest()

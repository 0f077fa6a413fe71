"""The reference for text: the LLM as it was before it learned to listen, or the text LLM that it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from ...foundation.decoder import eval_mode
from ..contract import Batch
from ..losses.answer_loss import AnswerLogits, predict_answers
from .packed_embeddings import accept_packed, takes_packed, text_embeddings
from .pretrained import weights_are_read
from .text_base import as_many_rows

Load = Callable[[torch.dtype], Any]


class ReferenceLLM:
    """The untouched LLM. If the tuning can switch itself off (LoRA), it is the same model, otherwise a frozen copy.

    It is also the teacher of distillation and the yardstick of forgetting, unless a text LLM is named for that
    (``base``), which is then a second frozen copy. Weights are always pulled and moved back towards the untouched LLM.

    A copy is loaded on first use, in the type and on the device of the trained LLM, and is not part of the module: no
    checkpoint, optimizer or DDP sees it.

    Args:
        load: Loads the untouched LLM in a type.
        llm: The model to be tuned, before the tuning prepares it.
        untouched: Gives a context in which the tuned model is the untouched one, or None if there is none
            (``Tuning.untouched``).
        load_base: Loads the text LLM that the model came from, if it is named.

    Attributes:
        resident: Whether the copy is needed at every step, so that :meth:`release` keeps it.
        untouched_fingerprint: Names the weights of the untouched LLM.
    """

    def __init__(
        self,
        load: Load,
        llm: nn.Module,
        untouched: Callable[[nn.Module], AbstractContextManager[None] | None],
        load_base: Load | None = None,
    ) -> None:
        self._load, self._llm, self._untouched, self._load_base = load, llm, untouched, load_base
        self._copy: Any = None
        self._base: Any = None
        self.untouched_fingerprint = weights_fingerprint(llm)
        self.resident = False

    @cached_property
    def fingerprint(self) -> str:
        """Names the weights of teacher and yardstick; a base is loaded for it."""
        return self.untouched_fingerprint if self._load_base is None else weights_fingerprint(self._loaded_base())

    @property
    def needs_copy(self) -> bool:
        """Whether it takes the memory of a second model."""
        return self._load_base is not None or self._untouched(self._llm) is None

    @contextmanager
    def active(self) -> Iterator[Any]:
        """Provides the teacher and yardstick, in eval mode and without gradients, within the context."""
        switched_off = self._untouched(self._llm)
        with torch.no_grad():
            if self._load_base is not None:
                yield self._loaded_base()
                return
            if switched_off is None:
                yield self._loaded()
                return
            with eval_mode(self._llm), switched_off:
                yield self._llm

    def copy(self) -> Any:
        """Returns a frozen copy of the untouched LLM, even if the tuning could do without one."""
        return self._loaded()

    def untouched_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a text batch."""
        with self.active() as llm:
            embeds = text_embeddings(llm, batch.input_ids)
            found = predict_answers(llm, embeds, batch.attention_mask, batch.labels)
            return found if self._load_base is None else found._replace(logits=as_many_rows(found.logits, self._llm))

    def release(self) -> None:
        """Frees the memory of the copy, unless something needs it at every step."""
        if not self.resident:
            self._copy = self._base = None

    def _loaded(self) -> Any:
        if self._copy is None:
            self._copy = self._frozen(self._load)
        return self._copy.to(next(self._llm.parameters()).device)

    def _loaded_base(self) -> Any:
        if self._base is None:
            assert self._load_base is not None
            self._base = self._frozen(self._load_base)
            if takes_packed(self._llm):
                accept_packed(self._base)
        return self._base.to(next(self._llm.parameters()).device)

    def _frozen(self, load: Load) -> Any:
        with isolate_rng():  # loading must not change the random numbers of a run
            return load(next(self._llm.parameters()).dtype).requires_grad_(False).eval()


def weights_fingerprint(llm: nn.Module, samples: int = 1024) -> str:
    """Hashes what distinguishes models within milliseconds: names, shapes and some evenly spaced values of each weight.

    A model built by :func:`shapes_only` has no values.
    """
    digest = hashlib.sha256()
    for name, parameter in llm.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if weights_are_read():
            flat = parameter.detach().flatten()
            some = flat[:: max(1, flat.numel() // samples)].to("cpu", torch.float32)
            digest.update(some.numpy().tobytes())
    return digest.hexdigest()

"""The LLM as it was before it learned to listen: teacher of distillation, yardstick of forgetting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from .tuning import Tuning


class ReferenceLLM:
    """The untouched LLM. Where the tuning can switch itself off (adapters) it is the same model, else a frozen copy.

    A copy is loaded when it is first asked for, in the type and on the device of the trained one, and is no part of
    the module: no checkpoint, optimizer or DDP sees it.

    Args:
        source: Folder or hub id of the untouched weights.
        llm: The model that is tuned.
        tuning: Its strategy.
    """

    def __init__(self, source: str, llm: nn.Module, tuning: Tuning) -> None:
        self._source, self._llm, self._tuning = source, llm, tuning
        self._copy: Any = None

    @property
    def needs_copy(self) -> bool:
        """Whether it costs the memory of a second model."""
        return self._tuning.untouched(self._llm) is None

    @contextmanager
    def active(self) -> Iterator[Any]:
        """Gives the untouched LLM in eval mode, without gradients, while the context lasts."""
        switched_off = self._tuning.untouched(self._llm)
        with torch.no_grad():
            if switched_off is None:
                yield self._loaded()
                return
            modes = [(module, module.training) for module in self._llm.modules()]
            self._llm.eval()
            try:
                with switched_off:
                    yield self._llm
            finally:
                for module, training in modes:
                    module.training = training

    def copy(self) -> Any:
        """A frozen copy of the untouched LLM, also where the tuning could do without one."""
        return self._loaded()

    def _loaded(self) -> Any:
        like = next(self._llm.parameters())
        if self._copy is None:
            self._copy = AutoModelForCausalLM.from_pretrained(self._source, dtype=like.dtype).requires_grad_(False)
            self._copy.eval()
        return self._copy.to(like.device)

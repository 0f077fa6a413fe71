"""Only the adaptor trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn

from .tuning import ParameterGroup, Tuning, trainable


class AdaptorOnly(Tuning):
    """The LLM stays as it is; the adaptor learns to speak its language (as in ultravox and DeSTA2, arXiv 2409.20007).

    Text behaviour cannot change. Spoken answers are limited by what the frozen LLM makes of the adaptor's output.
    """

    trains_llm = False
    moves_base_weights = False

    def needs_whole(self) -> str | None:
        """Names nothing."""
        return None

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Freezes everything except the adaptor."""
        llm.requires_grad_(False)
        encoder.requires_grad_(False)
        adaptor.requires_grad_(True)

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Builds one group, the adaptor's."""
        return [ParameterGroup("adaptor", trainable(adaptor))]

    def untouched(self, llm: nn.Module) -> AbstractContextManager[None]:
        """Has nothing to switch off: the LLM is always the untouched one."""
        return nullcontext()

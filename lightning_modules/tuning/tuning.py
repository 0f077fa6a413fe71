"""The contract of a tuning strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from ..decoder_layers import decoder_layers


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate, under a name that the learning-rate monitor shows.

    Attributes:
        name: ``adaptor``, ``encoder``, ``llm.07`` or ``llm.other``.
        parameters: The trainable ones.
        lr: Its learning rate; ``None`` takes the optimizer's own.
    """

    name: str
    parameters: list[nn.Parameter]
    lr: float | None = None


class Tuning(ABC):
    """Decides, before the optimizer and DDP see the model, what moves.

    ``requires_grad`` is set once, here, and never changed during a run: ranks would drift apart silently.
    """

    @abstractmethod
    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Sets ``requires_grad`` everywhere."""

    @abstractmethod
    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Every trainable parameter in exactly one group."""


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The module's parameters that move."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def llm_groups(llm: nn.Module) -> list[ParameterGroup]:
    """One group for each decoder layer, ``llm.00`` and so on, and ``llm.other`` for embeddings, final norm and head."""
    groups = [ParameterGroup(f"llm.{i:02d}", trainable(layer)) for i, layer in enumerate(decoder_layers(llm))]
    in_layers = {id(parameter) for group in groups for parameter in group.parameters}
    rest = [parameter for parameter in trainable(llm) if id(parameter) not in in_layers]
    return [group for group in [*groups, ParameterGroup("llm.other", rest)] if group.parameters]

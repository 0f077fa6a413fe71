"""The contract of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from ..speech_llm import SpeechLLM


class Objective(nn.Module, ABC):
    """A sum of losses over tokens, and how many tokens it is over.

    Sums, not means: the module divides by the global count over ranks and accumulation steps, so that one token
    weighs the same everywhere.

    Args:
        weight: Factor of this objective in the total.
    """

    #: Name under which its mean per token is logged (``train/<name>``).
    name: str

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(
                f"{type(self).__name__}: weight is {weight}, but must be positive (leave the objective out)"
            )
        self.weight = weight

    def build(self, model: SpeechLLM) -> None:
        """Makes parameters that depend on the model's sizes; called once the weights are loaded."""

    @abstractmethod
    def forward(self, model: SpeechLLM, batch: object) -> tuple[Tensor, Tensor]:
        """The batch's summed loss (scalar, with gradient) and the number of tokens it is over (scalar, integer)."""

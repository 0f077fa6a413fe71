"""The contract of an objective."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from ..contract import Batch, SpeechModel
from .loss_term import LossTerm


class Objective(LossTerm):
    """A sum of losses over tokens, and the number of these tokens.

    Sums, not means: the module divides by the global count over ranks and accumulation steps, so that one token
    weighs the same everywhere.

    Args:
        weight: Factor of this objective in the total.
    """

    #: Whether its value depends on the LLM's computation, so that everything trainable in the LLM gets a gradient.
    runs_llm: bool = True
    #: Whether speech rows must come with their text twins (``batch.twin``).
    needs_twins: bool = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        #: Further figures of the last batch, by the end of their name: logged as ``train/<name>_<key>``.
        self.figures: dict[str, Tensor] = {}

    @abstractmethod
    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the batch's summed loss (scalar, with gradient) and its number of tokens (scalar, integer)."""

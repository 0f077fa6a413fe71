"""The contract of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ..contract import Batch, Need, SpeechModel


class Objective(nn.Module, ABC):
    """A sum of losses over tokens, and how many tokens it is over.

    Sums, not means: the module divides by the global count over ranks and accumulation steps, so that one token
    weighs the same everywhere.

    Args:
        weight: Factor of this objective in the total.
    """

    #: Name under which its mean per token is logged (``train/<name>``).
    name: str
    #: Whether it is a penalty on the weights: its value counts once a step, however many tokens a batch holds.
    penalty: bool = False
    #: Whether its value depends on what the LLM computes, so that all that trains in the LLM gets a gradient.
    runs_llm: bool = True
    #: Whether speech rows must come with their text twins (``batch.twin``).
    needs_twins: bool = False
    #: What it needs of the tuning strategy; others are refused when the model is built.
    needs: tuple[Need, ...] = ()

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(
                f"{type(self).__name__}: weight is {weight}, but must be positive (leave the objective out)"
            )
        self.weight = weight
        #: Further figures of the last batch, by the end of their name: logged as ``train/<name>_<key>``.
        self.figures: dict[str, Tensor] = {}

    def build(self, model: SpeechModel) -> None:
        """Makes what depends on the model's weights; called once they are loaded and the tuning has prepared them."""

    def start(self, model: SpeechModel) -> None:
        """Gets ready for training; called at the start of a fit, with the data module and any checkpoint in place."""

    def edit_gradients(self, model: SpeechModel) -> None:
        """Adds to the gradients of an optimizer step what autograd does not compute, after they are normalised."""

    @abstractmethod
    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch's summed loss (scalar, with gradient) and the number of tokens it is over (scalar, integer).

        A penalty gives its value and 1.
        """

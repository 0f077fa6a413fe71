"""The contract of a penalty."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from ..contract import SpeechModel
from .loss_term import LossTerm


class Penalty(LossTerm):
    """A function of the weights alone: its value, and its gradient.

    It is no sum over tokens, and nothing divides it: the loss of a step is the objectives' mean per token plus
    ``weight`` times the value. The gradient is not part of a backward pass, which there are several of where batches
    are accumulated, but added once an optimizer step, by every rank the same.

    Args:
        weight: Factor of this penalty in the total.
    """

    @abstractmethod
    def value(self, model: SpeechModel) -> Tensor:
        """Returns the penalty of the weights as they are, without its factor (scalar, without gradient)."""

    @abstractmethod
    def add_gradient(self, model: SpeechModel) -> None:
        """Adds the gradient of ``weight`` times the value to the gradients of the weights.

        Called when these are those of the mean per token, over all ranks, and before they are clipped.
        """

"""The contract of a penalty."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from ..contract import SpeechModel
from .loss_term import LossTerm


class Penalty(LossTerm):
    """A function of the weights alone: its value, and its gradient.

    It is not a sum over tokens and is not divided by anything: the loss of a step is the objectives' mean per token
    plus ``weight`` times the value. Its gradient is not part of a backward pass, of which there are several when
    batches are accumulated, but is added once per optimizer step, identically on every rank.

    Args:
        weight: Factor of this penalty in the total.
    """

    @abstractmethod
    def value(self, model: SpeechModel) -> Tensor:
        """Returns the penalty of the current weights, without its factor (scalar, without gradient)."""

    @abstractmethod
    def add_gradient(self, model: SpeechModel) -> None:
        """Adds the gradient of ``weight`` times the value to the gradients of the weights.

        Called when these are the gradients of the mean per token over all ranks, before they are clipped.
        """

"""What an objective over tokens and a penalty on weights have in common."""

from __future__ import annotations

import math
from abc import ABC

from torch import nn

from ..contract import Need, SpeechModel


class LossTerm(nn.Module, ABC):
    """A term of the training loss.

    Args:
        weight: Factor of this term in the total.

    Raises:
        ValueError: If the weight is not positive.
    """

    #: Name under which its value is logged (``train/<name>``).
    name: str
    #: What it needs of the tuning strategy; others are refused when the model is built.
    needs: tuple[Need, ...] = ()
    #: Whether it teaches an adaptor that is new where the LLM's words are: an audio LLM's own has learned that.
    teaches_words: bool = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.set_weight(weight)

    def set_weight(self, weight: float) -> None:
        """Sets the factor of this term in the total, from the next step on; alike on all ranks.

        What changes it during a run keeps it: the weight is a setting, and no checkpoint holds it.

        Raises:
            ValueError: If it is not positive and finite.
        """
        if not 0 < weight < math.inf:
            raise ValueError(
                f"{type(self).__name__}: weight is {weight}, but must be positive (leave the objective out)"
            )
        self.weight = weight

    def needs_whole(self) -> str | None:
        """Names what of it must meet whole weights, so that it cannot train where ranks share them out (``FSDP2``).

        None if nothing must; what does not say so is refused there.
        """
        return type(self).__name__

    def build(self, model: SpeechModel) -> None:
        """Makes what depends on the model's weights; called once they are loaded and the tuning has prepared them."""

    def start(self, model: SpeechModel) -> None:
        """Gets ready for training; called at the start of a fit, with the data module and any checkpoint in place."""

"""The common base of objectives over tokens and penalties on weights."""

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
    #: What it needs from the tuning strategy; others are refused when the model is built.
    needs: tuple[Need, ...] = ()
    #: Whether it teaches a new adaptor where the LLM's words are, which an audio LLM's own has already learned.
    teaches_words: bool = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.set_weight(weight)

    def set_weight(self, weight: float) -> None:
        """Sets this term's factor in the total from the next step on; must be the same on all ranks.

        Code that changes it during a run must save it: the weight is a setting and not part of checkpoints.

        Raises:
            ValueError: If it is not positive and finite.
        """
        if not 0 < weight < math.inf:
            raise ValueError(
                f"{type(self).__name__}: weight is {weight}, but must be positive (leave the objective out)"
            )
        self.weight = weight

    def needs_whole(self) -> str | None:
        """Names what needs whole weights and therefore cannot train when they are sharded (``FSDP2``).

        None if nothing does; anything that does not say so is refused there.
        """
        return type(self).__name__

    def build(self, model: SpeechModel) -> None:
        """Builds what depends on the model's weights; called once they are loaded and the tuning has prepared them."""

    def start(self, model: SpeechModel) -> None:
        """Prepares for training; called at the start of a fit, with the data module and any checkpoint in place."""

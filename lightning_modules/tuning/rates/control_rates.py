"""Controls: how much of a layer-wise rate's effect is due to its profile, and how much to slower learning as such?"""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import Any

from ....importance import Snapshot
from ..importance_user import ImportanceRequest
from .layer_rates import LayerRates


class ControlRates(LayerRates):
    """Modifies other rates, and requests what they request.

    Args:
        of: The rates under test.
    """

    def __init__(self, of: LayerRates) -> None:
        self.of = of

    @abstractmethod
    def changed(self, multipliers: list[float]) -> list[float]:
        """Computes the control's factors from those of the rates it controls for."""

    def multipliers(self, layers: int) -> list[float]:
        """Changes the factors of the inner rates."""
        return self.changed(self.of.multipliers(layers))

    @property
    def request(self) -> ImportanceRequest | None:
        """Requests what the inner rates request."""
        return self.of.request

    @property
    def waiting(self) -> bool:
        """Returns whether the inner rates are waiting."""
        return self.of.waiting

    def use(self, snapshot: Snapshot) -> None:
        """Passes the measurement on."""
        self.of.use(snapshot)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the inner rates."""
        return self.of.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Passes the state on."""
        self.of.load_state_dict(state)


class ReversedRates(ControlRates):
    """The same range reversed: under equation 3, the most important layer learns fastest.

    ``max + min - m``, which for :class:`ImportanceRates` is equation 3 with ``1 - I`` for the scaled importance ``I``.
    The mean becomes ``max + min - mean``; :class:`PermutedRates` keeps it.
    """

    def changed(self, multipliers: list[float]) -> list[float]:
        """Mirrors each factor between the smallest and the largest."""
        total = max(multipliers) + min(multipliers)
        return [total - value for value in multipliers]


class UniformRates(ControlRates):
    """The same mean for every decoder layer: slower learning without a profile.

    The mean is over all decoder layers, trained or not.
    """

    def changed(self, multipliers: list[float]) -> list[float]:
        """Returns the mean for every layer."""
        return [sum(multipliers) / len(multipliers)] * len(multipliers)


class PermutedRates(ControlRates):
    """The same factors, randomly assigned to layers.

    Args:
        of: The rates under test.
        seed: Of the permutation; use several.
    """

    def __init__(self, of: LayerRates, seed: int = 0) -> None:
        super().__init__(of)
        self.seed = seed

    def changed(self, multipliers: list[float]) -> list[float]:
        """Shuffles the factors."""
        return random.Random(self.seed).sample(multipliers, len(multipliers))

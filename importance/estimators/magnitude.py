"""Magnitude: the weights alone, the baseline that needs no data."""

from __future__ import annotations

from torch import Tensor

from .spec import Spec


class Magnitude:
    """``|theta|``."""

    def entries(self, weight: Tensor, norms: Tensor | None) -> Tensor:
        """Returns ``|theta|``."""
        return weight.abs()


MAGNITUDE = Spec("|theta|", forward=Magnitude())

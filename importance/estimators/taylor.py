"""Taylor: what removing a weight does to the loss, to first order."""

from __future__ import annotations

import torch
from torch import Tensor

from .spec import Spec


class Taylor:
    """``|theta g_i|``: first-order change of the loss when a weight is removed.

    The first-order score of Molchanov et al. 2019 (arXiv 1906.10771), per weight and without the square.
    """

    def totals(self, gradient: Tensor, magnitude: Tensor) -> Tensor:
        """Returns ``sum |theta g_i|`` of each example; the gradient becomes its absolute value."""
        return torch.mv(gradient.abs_().flatten(1), magnitude.flatten())

    def add(self, gradient: Tensor, sums: Tensor) -> None:
        """Adds ``|g_i|``."""
        for one in gradient:
            sums.add_(one)

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """Multiplies by ``|theta|``."""
        return sums.mul_(magnitude)


TAYLOR = Spec("E_i |theta g_i|", block=Taylor(), source="Molchanov et al. 2019, arXiv 1906.10771")

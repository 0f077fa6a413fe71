"""Wanda: the weights times the size of their inputs."""

from __future__ import annotations

from torch import Tensor

from .spec import Spec


class Wanda:
    """``|theta| (E_i |a_i|^2)^1/2``: the size of a weight's contribution (Sun et al. 2023, arXiv 2306.11695)."""

    def entries(self, weight: Tensor, norms: Tensor | None) -> Tensor:
        """Returns ``|theta|`` times the norm of the weight's input."""
        assert norms is not None
        return weight.abs() * norms


WANDA = Spec("|theta| (E_i |a_i|^2)^1/2", forward=Wanda(), input_norms=True, source="Sun et al. 2023, 2306.11695")

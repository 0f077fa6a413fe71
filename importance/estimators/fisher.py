"""Fisher: the diagonal of the Fisher information, with the data's labels or with labels that the model draws."""

from __future__ import annotations

import torch
from torch import Tensor

from .spec import Spec


class Fisher:
    """``g_i^2``: diagonal of the Fisher information; empirical or true depends on where the labels come from.

    ``g_i`` is the gradient of the example's mean loss over its T_i answer tokens, so this is the Fisher information of
    its summed log-likelihood over T_i^2: it falls, about like 1 / T_i, as answers grow longer.

    Kunstner et al. 2019 (arXiv 1905.12558) on the difference; van de Ven 2025 (arXiv 2502.11756) on why the square is
    taken per example.
    """

    def totals(self, gradient: Tensor, magnitude: Tensor) -> Tensor:
        """Returns ``sum g_i^2`` of each example."""
        flat = gradient.flatten(1)
        return torch.dot(flat[0], flat[0]).unsqueeze(0) if len(flat) == 1 else flat.square().sum(1)

    def add(self, gradient: Tensor, sums: Tensor) -> None:
        """Adds ``g_i^2``."""
        for one in gradient:
            sums.addcmul_(one, one)

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """Leaves the sums as they are."""
        return sums


FISHER = Spec(
    "E_i g_i^2", block=Fisher(), squared_norm=True, source="empirical Fisher; Kunstner et al. 2019, arXiv 1905.12558"
)
FISHER_SAMPLED = Spec(
    "E_i E_y~p g_i(y)^2",
    block=Fisher(),
    squared_norm=True,
    labels="sampled",
    source="true Fisher by label draws; van de Ven, 2502.11756",
)

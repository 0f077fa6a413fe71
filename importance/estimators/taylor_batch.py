"""Taylor of the summed gradient, as in the paper's predecessor."""

from __future__ import annotations

from torch import Tensor

from .spec import Spec


class TaylorBatch:
    """``|theta sum_i g_i|``: only the sum of the gradients is kept, so opposing examples cancel.

    Zhang et al. 2024 (Linguistic Regions, arXiv 2402.14700).
    """

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """Takes the absolute value and multiplies by ``|theta|``."""
        return sums.abs_().mul_(magnitude)


TAYLOR_BATCH = Spec(
    "|theta E_i g_i|", batch=TaylorBatch(), source="Zhang et al. 2024, arXiv 2402.14700 (Linguistic Regions)"
)

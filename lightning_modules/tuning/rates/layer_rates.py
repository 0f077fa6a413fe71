"""The contract of layer-wise learning rates."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..importance_user import ImportanceUser


class LayerRates(ImportanceUser, ABC):
    """A factor on the learning rate of each decoder layer.

    It multiplies the whole schedule (warm-up included). Adaptor, embeddings, final norm and output head keep the
    optimizer's rate.
    """

    @abstractmethod
    def multipliers(self, layers: int) -> list[float]:
        """Returns one factor per decoder layer, first to last; 1 everywhere while a measurement is outstanding.

        Args:
            layers: Number of decoder layers of the LLM.

        Raises:
            ValueError: If the rates were made for another number of layers.
        """

    def describe(self, layers: int) -> str:
        """Returns the range, such as ``learning rate x0.60 (layer 2) to x1.00 (layer 17)``."""
        factors = self.multipliers(layers)
        low, high = min(factors), max(factors)
        if low == high:
            return f"learning rate x{low:.2f} in every decoder layer"
        slowest, fastest = factors.index(low), factors.index(high)
        return f"learning rate x{low:.2f} (layer {slowest}) to x{high:.2f} (layer {fastest})"

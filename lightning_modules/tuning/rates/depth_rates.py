"""Learning rates that depend on depth alone."""

from __future__ import annotations

from collections.abc import Sequence

from .layer_rates import LayerRates


class ExponentialDepthRates(LayerRates):
    """The last layer learns at the full rate, each layer below it slower by a constant factor.

    Discriminative fine-tuning (ULMFiT, arXiv 1801.06146, section 3.2, with 1/2.6); known as layer-wise learning-rate
    decay with 0.8 to 0.9 (ELECTRA, arXiv 2003.10555, table 7).

    Args:
        decay: Factor from a layer to the one below it, in (0, 1]. With 30 layers, 0.9 leaves 0.05 for the first.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"ExponentialDepthRates: decay is {decay}, but must lie in (0, 1]")
        self.decay = decay

    def multipliers(self, layers: int) -> list[float]:
        """Returns ``decay ** (layers - 1 - layer)`` for each layer."""
        return [self.decay ** (layers - 1 - layer) for layer in range(layers)]


class LinearDepthRates(LayerRates):
    """From one factor at the first layer to another at the last, in equal steps.

    Args:
        first: Factor of the first decoder layer.
        last: Factor of the last one.
    """

    def __init__(self, first: float = 0.6, last: float = 1.0) -> None:
        _check("LinearDepthRates", (first, last))
        self.first = first
        self.last = last

    def multipliers(self, layers: int) -> list[float]:
        """Returns factors that are linear in the layer's index."""
        step = (self.last - self.first) / max(layers - 1, 1)
        return [self.first + step * layer for layer in range(layers)]


class ListedRates(LayerRates):
    """Explicit factors.

    Args:
        values: One per decoder layer, first to last. At 0 a layer stays unchanged: the rate also scales weight decay.
    """

    def __init__(self, values: Sequence[float]) -> None:
        _check("ListedRates", values)
        self.values = list(values)

    def multipliers(self, layers: int) -> list[float]:
        """Returns the values.

        Raises:
            ValueError: If their number is not that of the layers.
        """
        if len(self.values) != layers:
            raise ValueError(f"ListedRates: {len(self.values)} values given, but the LLM has {layers} decoder layers")
        return list(self.values)


def _check(owner: str, values: Sequence[float]) -> None:
    if not values or min(values) < 0 or max(values) == 0:
        raise ValueError(f"{owner}: factors must be 0 or more and not all 0, got {list(values)}")

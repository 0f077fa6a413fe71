"""LoRA ranks, one per decoder layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ...importance import ESTIMATORS
from .importance_user import read_snapshot


class LayerRanks(ABC):
    """Decides LoRA's rank in each decoder layer."""

    @abstractmethod
    def of(self, layers: int, mean: int) -> list[int]:
        """Returns one rank per decoder layer, first to last.

        Args:
            layers: Number of decoder layers.
            mean: LoRA's configured rank, which all layers would otherwise have.

        Raises:
            FileNotFoundError: If the source of the ranks is missing.
            ValueError: If it was made for another model.
        """


class ImportanceRanks(LayerRanks):
    r"""Ranks from the importance of the layers.

    :math:`r_l = 1 + L (r - 1) p_l`, with the layer's share p_l of the importance of all L layers, rounded by largest
    remainders: the sum is L r, so the mean rank is kept, and every layer learns. All layers keep the scale alpha / r.
    A loaded or resumed run takes the ranks from its checkpoint.

    Args:
        snapshot: Folder of a snapshot of the untouched LLM (``importance/PROBE/step=000000`` of a run, or what
            ``textkeep importance probe`` wrote).
        estimator: Whose layer shares count.
        reverse: Give more rank to the layers that matter least: :math:`(1 - p_l) / (L - 1)` instead of p_l.
    """

    def __init__(self, snapshot: str, estimator: str = "taylor", reverse: bool = False) -> None:
        if estimator not in ESTIMATORS:
            raise ValueError(f"ImportanceRanks: estimator {estimator!r} is unknown; allowed: {', '.join(ESTIMATORS)}")
        self.snapshot = snapshot
        self.estimator = estimator
        self.reverse = reverse

    def of(self, layers: int, mean: int) -> list[int]:
        """Distributes L (r - 1) by importance, and adds one to every layer."""
        shares = list(read_snapshot("ImportanceRanks", self.snapshot, self.estimator).shares(self.estimator).values())
        if len(shares) != layers:
            raise ValueError(
                f"ImportanceRanks: {self.snapshot} is of {len(shares)} decoder layers, but the LLM has {layers}"
            )
        if self.reverse:
            shares = [(1 - share) / max(layers - 1, 1) for share in shares]
        return [1 + part for part in apportion(layers * (mean - 1), shares)]


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Finds whole numbers with a given sum, in proportion to shares (Hamilton's largest remainders).

    Args:
        total: Their sum.
        shares: Not negative.
    """
    whole = sum(shares)
    exact = [total * share / whole for share in shares]
    found = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: found[i] - exact[i])
    for index in by_remainder[: total - sum(found)]:
        found[index] += 1
    return found

"""Equation 3 of the paper: the more important a layer is for text, the slower it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....importance import Snapshot
from ..importance_user import ImportanceRequest, check_origin, read_snapshot
from .layer_rates import LayerRates


class ImportanceRates(LayerRates):
    r"""Layer-wise learning rates from text importance (arXiv 2509.23755, equation 3).

    :math:`m_l = 1 - \lambda (I_l - \min I) / (\max I - \min I)`: 1 for the least important decoder layer,
    :math:`1 - \lambda` for the most important one. Minimum and maximum are over all decoder layers, trained or not. If
    all layers are equally important, they keep the optimizer's rate.

    The importance comes from a snapshot on disk, or is measured on a probe before the first step.

    Args:
        snapshot: Folder of a snapshot of the untouched LLM (``importance/PROBE/step=000000`` of a run, or what
            ``textkeep importance probe`` wrote).
        probe: Name of a probe of the data module to measure on, instead of a snapshot.
        estimator: Whose layer totals count; ``taylor`` is the paper's.
        strength: The paper's lambda, from 0 (the plain rate) to 1 (the most important layer is frozen).
        every_n_steps: Measure again every this many optimizer steps, which needs a probe; 0 keeps the initial rates, as
            the paper does.

    Raises:
        ValueError: For settings that contradict each other or lie outside their range.
    """

    def __init__(
        self,
        snapshot: str | None = None,
        probe: str | None = None,
        estimator: str = "taylor",
        strength: float = 0.4,
        every_n_steps: int = 0,
    ) -> None:
        check_origin("ImportanceRates", snapshot, probe, estimator)
        if not 0 <= strength <= 1:
            raise ValueError(f"ImportanceRates: strength is {strength}, but must lie in [0, 1]")
        if every_n_steps < 0:
            raise ValueError(f"ImportanceRates: every_n_steps is {every_n_steps}, but must be 0 or more")
        if every_n_steps and probe is None:
            raise ValueError("ImportanceRates: every_n_steps measures again, which needs a probe, not a snapshot")
        self.snapshot = snapshot
        self.estimator = estimator
        self.strength = strength
        self._request = None if probe is None else ImportanceRequest(probe, estimator, every_n_steps)
        self._importance: list[float] | None = None

    @property
    def request(self) -> ImportanceRequest | None:
        """Requests the measurement on the probe."""
        return self._request

    @property
    def waiting(self) -> bool:
        """Waits until the probe has been measured."""
        return self._request is not None and self._importance is None

    def use(self, snapshot: Snapshot) -> None:
        """Receives the shares of the layers."""
        self._importance = list(snapshot.shares(self.estimator).values())

    def multipliers(self, layers: int) -> list[float]:
        """Applies equation 3; reads the snapshot at the first call.

        Raises:
            FileNotFoundError: If the snapshot is not there.
            ValueError: If it has another number of layers or lacks the estimator.
        """
        if self._importance is None and self.snapshot is not None:
            self.use(read_snapshot("ImportanceRates", self.snapshot, self.estimator))
        if self._importance is None:
            return [1.0] * layers
        if len(self._importance) != layers:
            where = f"the snapshot {self.snapshot}" if self.snapshot else "the measurement"
            raise ValueError(
                f"ImportanceRates: {where} is of {len(self._importance)} decoder layers, but the LLM has {layers}"
            )
        return importance_multipliers(self._importance, self.strength)

    def state_dict(self) -> dict[str, Any]:
        """Saves the importance in use: a resumed run neither measures nor reads it again."""
        return {} if self._importance is None else {"importance": self._importance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the importance."""
        if "importance" in state:
            self._importance = list(state["importance"])


def importance_multipliers(importance: Sequence[float], strength: float) -> list[float]:
    """Applies equation 3 of arXiv 2509.23755 to one value per layer, in any unit."""
    low, high = min(importance), max(importance)
    if high == low:
        return [1.0] * len(importance)
    return [1.0 - strength * (value - low) / (high - low) for value in importance]

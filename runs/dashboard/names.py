"""The metric names that a project's runs log, from which panels are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...foundation.errors import UserError
from ...foundation.run_names import ADAPTOR_GROUP, RATE_PREFIX, importance_key, layer_group, layer_label
from ..importance_records import SUMMARY_FILE
from ..run import Run, holds_part


@dataclass(frozen=True)
class MetricNames:
    """Names for importance and learning rates; the others are the same in all runs.

    Attributes:
        probes: Probes.
        estimators: Estimators.
        layers: Labels of the layers (``layer_07``).
        rates: Keys of the learning rates by layer.
    """

    probes: tuple[str, ...]
    estimators: tuple[str, ...]
    layers: tuple[str, ...]
    rates: tuple[str, ...]

    @classmethod
    def of_run(cls, run: Path) -> MetricNames:
        """Returns the names that a run has logged.

        Raises:
            UserError: If the run has no importance measurement.
        """
        opened = Run.open(run) if holds_part(run) else None
        if opened is None or not opened.importance.measurements:
            damage = [note for note in opened.notes if note.startswith(SUMMARY_FILE)] if opened else []
            reason = damage[0] if damage else f"no {SUMMARY_FILE} with a measurement"
            raise UserError(f"--run {run}: {reason}; allowed: a run directory with measurements")
        return cls(
            probes=tuple(opened.importance.probes),
            estimators=tuple(opened.importance.estimators),
            layers=tuple(opened.importance.measurements[0]["shares"]),
            rates=tuple(name for name in opened.metrics.columns if name.startswith(RATE_PREFIX)),
        )

    @classmethod
    def assumed(cls, probes: Sequence[str], estimators: Sequence[str], layers: int) -> MetricNames:
        """Returns the names for future runs, with AdamW and ``LearningRateMonitor``.

        Raises:
            UserError: If the number of layers is not positive.
        """
        if layers < 1:
            raise UserError(f"--layers {layers}: a positive number is allowed")
        groups = [ADAPTOR_GROUP, *(layer_group(i) for i in range(layers))]
        return cls(
            probes=tuple(probes),
            estimators=tuple(estimators),
            layers=tuple(layer_label(i, layers) for i in range(layers)),
            rates=tuple(f"{RATE_PREFIX}AdamW/{group}" for group in groups),
        )

    def of_layers(self, probe: str, estimator: str) -> list[str]:
        """Returns the keys of the layer shares."""
        return [importance_key(probe, estimator, layer) for layer in self.layers]

"""The metric names that a project's runs log: what panels are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...foundation.errors import UserError
from ..importance_records import SUMMARY_FILE
from ..run import Run, holds_part


@dataclass(frozen=True)
class MetricNames:
    """Names of importance and learning rates; the others are the same in all runs.

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
        """The names that a run has logged.

        Raises:
            UserError: If the run has no importance measurement.
        """
        opened = Run.open(run) if holds_part(run) else None
        if opened is None or not opened.importance.measurements:
            raise UserError(f"--run {run}: no {SUMMARY_FILE} with a measurement; allowed: a run directory that has one")
        return cls(
            probes=tuple(opened.importance.probes),
            estimators=tuple(opened.importance.estimators),
            layers=tuple(opened.importance.measurements[0]["shares"]),
            rates=tuple(name for name in opened.metrics.columns if name.startswith("lr-")),
        )

    @classmethod
    def assumed(cls, probes: Sequence[str], estimators: Sequence[str], layers: int) -> MetricNames:
        """The names of runs to come, with AdamW and ``LearningRateMonitor``.

        Raises:
            UserError: If the number of layers is not positive.
        """
        if layers < 1:
            raise UserError(f"--layers {layers}: a positive number is allowed")
        width = max(2, len(str(layers - 1)))
        numbers = [f"{i:0{width}d}" for i in range(layers)]
        rates = ["lr-AdamW/adaptor", *(f"lr-AdamW/llm.{number}" for number in numbers)]
        return cls(tuple(probes), tuple(estimators), tuple(f"layer_{number}" for number in numbers), tuple(rates))

    def of_layers(self, probe: str, estimator: str) -> list[str]:
        """Keys of the layer shares."""
        return [f"importance/{probe}/{estimator}/{layer}" for layer in self.layers]

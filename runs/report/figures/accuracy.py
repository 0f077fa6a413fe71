"""Accuracy of text and speech over steps."""

from __future__ import annotations

from collections.abc import Sequence

from ...run import Run
from .figure import Figure
from .over_steps import BARS, by_stage, scores_over_steps


def accuracy(runs: Sequence[Run]) -> Figure | None:
    """Draws the accuracies with Wilson's intervals."""
    drawn = scores_over_steps(runs, "accuracy", "accuracy, %", 100.0, rangemode="tozero")
    return by_stage("accuracy", "Accuracy", f"{BARS} (Wilson).", drawn)

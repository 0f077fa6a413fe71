"""Loss on the answers of text and speech over steps."""

from __future__ import annotations

from collections.abc import Sequence

from ...run import Run
from .figure import Figure
from .over_steps import BARS, by_stage, scores_over_steps


def answer_loss(runs: Sequence[Run]) -> Figure | None:
    """Draws the losses with bootstrap intervals."""
    drawn = scores_over_steps(runs, "answer_loss", "answer loss, nats/token", 1.0)
    return by_stage("answer-loss", "Loss on the answers", f"{BARS} (bootstrap over items).", drawn)

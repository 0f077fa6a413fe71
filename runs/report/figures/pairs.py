"""Shared parts of the importance figures: the selections of probe and estimator, and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...measurements import Estimated
from ...run import Run
from .figure import Drawing, Figure

DEPTH = "layer (0 = next to the embeddings)"


def pairs_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Lists the probes with their estimators that any of the runs measured."""
    return list(dict.fromkeys(pair for run in runs for pair in run.importance.pairs))


def by_pair(
    identity: str,
    title: str,
    note: str,
    drawn: Mapping[str, Drawing],
    runs: Sequence[Run],
    more: Mapping[str, Mapping[str, str]] | None = None,
    follows: str = "",
) -> Figure | None:
    """Builds a figure with a drawing for each ``probe|estimator``; None without any.

    Args:
        identity: Of the figure.
        title: Above it.
        note: Below it.
        drawn: By probe and estimator, and by the values of further selections.
        runs: The runs shown.
        more: Those selections.
        follows: What the section's slider does to it.
    """
    if not drawn:
        return None
    pairs = pairs_of(runs)
    choices = {"probe": {p: p for p, _ in pairs}, "estimator": {e: e for _, e in pairs}, **(more or {})}
    steps = sorted({step for run in runs for step in run.importance.steps}) if follows else []
    return Figure(identity, title, drawn, note, choices, follows, steps)


def limits_of(estimate: Estimated) -> tuple[float, float, float]:
    """Returns value, low and high; unknown limits are NaN.

    For a distance, the value is the noise-corrected one if known: the limits surround that.
    """
    low, high = estimate.get("low"), estimate.get("high")
    corrected = estimate.get("corrected")
    return (
        estimate["value"] if corrected is None else corrected,
        math.nan if low is None else low,
        math.nan if high is None else high,
    )

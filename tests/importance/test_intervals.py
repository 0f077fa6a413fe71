"""Intervals of a shift against a known truth: how often they cover it."""

from __future__ import annotations

import numpy as np
import pytest

from textkeep.importance.intervals import paired_intervals
from textkeep.importance.metrics import METRICS

LAYERS = 10
TRIALS = 400


def simulated(rng: np.random.Generator, tilt: np.ndarray, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal totals whose sizes all layers share, and the same after a change with noise of its own."""
    before = np.exp(0.5 * rng.normal(size=(examples, 1)) + 0.35 * rng.normal(size=(examples, LAYERS)))
    return before, before * tilt * np.exp(0.08 * rng.normal(size=before.shape))


@pytest.mark.parametrize(("tilt", "most"), [(0.0, 1.0), (0.03, 1.0), (0.1, 0.96)])
def test_they_cover_the_true_shift_as_often_as_they_say(tilt: float, most: float) -> None:
    """Of 90 % intervals, within the 8 points that docs/results/importance.md states for few examples and skewed totals.

    A distance of nothing lies at the end of its range, where they cover more.
    """
    change = 1.1 * np.exp(np.linspace(-tilt, tilt, LAYERS))
    true = {name: float(METRICS[name](np.ones(LAYERS), change)) for name in ("js", "wasserstein", "centre_move")}
    true["log_total_ratio"] = float(np.log(change.mean())) + 0.08**2 / 2  # the mean of the noise's exponential
    rng, covered = np.random.default_rng(3), dict.fromkeys(true, 0)
    for _ in range(TRIALS):
        found, ratios = paired_intervals(*simulated(rng, change, 12), 300, rng)
        covered = {name: n + (found[name][0] <= true[name] <= found[name][1]) for name, n in covered.items()}
        assert len(ratios) == LAYERS
    share = {name: n / TRIALS for name, n in covered.items()}
    for name in ("js", "wasserstein"):
        assert 0.82 <= share[name] <= most, name
    for name in ("log_total_ratio", "centre_move"):
        assert share[name] == pytest.approx(0.90, abs=0.055), name


def test_nothing_moved_has_an_interval_of_nothing_and_one_example_has_one_at_all() -> None:
    rng = np.random.default_rng(0)
    before, _ = simulated(rng, np.ones(LAYERS), 6)
    metrics, ratios = paired_intervals(before, before, 50, rng)
    assert metrics["js"] == metrics["wasserstein"] == metrics["centre_move"] == (0.0, 0.0)
    assert metrics["spearman"] == (1.0, 1.0)
    assert ratios == [(1.0, 1.0)] * LAYERS
    alone, _ = paired_intervals(before[:1], 2 * before[:1], 50, rng)
    assert alone["log_total_ratio"] == pytest.approx((np.log(2), np.log(2)))

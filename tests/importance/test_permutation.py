"""The paired permutation test against plain loops, its size and power, and what halves of a probe cannot see."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from textkeep.importance.metrics import METRICS, NO_CHANGE
from textkeep.importance.permutation import paired_permutation
from textkeep.importance.shift import half_split_weights


def measured(rng: np.random.Generator, examples: int, layers: int = 6) -> np.ndarray:
    """(N, L) totals of examples that differ far more from each other than training moves them."""
    return rng.gamma(1.0, size=(examples, 1)) * rng.gamma(2.0, size=(examples, layers))


def distance(name: str, before: np.ndarray, after: np.ndarray) -> float:
    return abs(float(METRICS[name](before, after)) - NO_CHANGE[name][0])


def test_few_examples_are_exchanged_in_every_way() -> None:
    rng = np.random.default_rng(0)
    before = measured(rng, 5)
    after = before * rng.gamma(20.0, 1 / 20, size=before.shape)
    found = paired_permutation(before, after)
    assert found.exact
    assert found.floor == 1 / 16
    for name in METRICS:
        observed, reached = distance(name, before.mean(0), after.mean(0)), 0
        for exchanged in product([False, True], repeat=5):
            swap = np.array(exchanged)[:, None]
            first, second = np.where(swap, after, before), np.where(swap, before, after)
            reached += distance(name, first.mean(0), second.mean(0)) >= observed * (1 - 1e-9)
        assert found.p[name] == pytest.approx(reached / 32), name


def test_draws_agree_with_all_ways_and_count_the_observed_one() -> None:
    rng = np.random.default_rng(1)
    before = measured(rng, 13)
    after = before * rng.gamma(8.0, 1 / 8, size=before.shape)
    every, drawn = paired_permutation(before, after), paired_permutation(before, after, draws=4000)
    assert (every.exact, drawn.exact) == (True, False)
    assert drawn.floor == 1 / 4001
    for name, p in every.p.items():
        assert drawn.p[name] == pytest.approx(p, abs=0.03)
    far = paired_permutation(before, before * np.linspace(1.0, 2.0, 6), draws=99)
    assert far.p["js"] == far.floor == 0.01
    assert paired_permutation(before, after, draws=200, seed=3) == paired_permutation(before, after, draws=200, seed=3)


def test_without_any_change_nothing_is_found() -> None:
    before = measured(np.random.default_rng(2), 20)
    assert set(paired_permutation(before, before, draws=99).p.values()) == {1.0}


@pytest.mark.parametrize("examples", [8, 24])
def test_it_rejects_a_true_null_as_often_as_it_says(examples: int) -> None:
    """Two measurements of each example that only noise tells apart: 800 times."""
    rng, rejected, trials = np.random.default_rng(examples), 0, 800
    for trial in range(trials):
        level = measured(rng, examples)
        pair = (level * rng.gamma(9.0, 1 / 9, size=level.shape) for _ in range(2))
        rejected += paired_permutation(*pair, draws=199, seed=trial).p["js"] <= 0.05
    assert rejected / trials == pytest.approx(0.05, abs=0.02)  # 2.6 standard errors


def test_it_finds_what_halves_of_the_probe_hide() -> None:
    """All examples move a little and alike: far less than examples differ, and yet no chance."""
    rng = np.random.default_rng(4)
    before = measured(rng, 24)
    after = before * np.linspace(0.97, 1.03, 6) * rng.gamma(4000.0, 1 / 4000, size=before.shape)
    left, right = half_split_weights(24, 500, rng)
    between_halves = np.percentile(METRICS["js"](left @ before, right @ before), 95)
    assert METRICS["js"](before.mean(0), after.mean(0)) < between_halves
    found = paired_permutation(before, after)
    assert found.p["js"] == found.floor


def test_a_distance_is_never_beyond_one() -> None:
    rng = np.random.default_rng(5)
    sides = np.zeros((2, 500, 8))
    sides[0, :, :4], sides[1, :, 4:] = rng.gamma(0.3, size=(2, 500, 4)) + 1e-9
    found = METRICS["js"](*sides)
    assert found.max() == 1.0
    assert found.min() >= 0.0

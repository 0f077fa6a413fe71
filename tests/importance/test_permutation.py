"""The paired permutation test against plain loops, its size and power, and what halves of a probe cannot see."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from textkeep.importance.intervals import half_split_weights
from textkeep.importance.metrics import METRICS, NO_CHANGE
from textkeep.importance.permutation import Permutation, paired_permutation


def measured(rng: np.random.Generator, examples: int, layers: int = 6) -> np.ndarray:
    """(N, L) totals of examples that differ far more from each other than training moves them."""
    return rng.gamma(1.0, size=(examples, 1)) * rng.gamma(2.0, size=(examples, layers))


def distance(name: str, before: np.ndarray, after: np.ndarray) -> float:
    return abs(float(METRICS[name](before, after)) - NO_CHANGE[name][0])


def rho(before: np.ndarray, after: np.ndarray) -> float:
    return float(METRICS["spearman"](before.mean(0), after.mean(0)))


def off(found: Permutation) -> float:
    return 1 - found.expected["spearman"]


def test_few_examples_are_exchanged_in_every_way() -> None:
    rng = np.random.default_rng(0)
    before = measured(rng, 5)
    after = before * rng.gamma(20.0, 1 / 20, size=before.shape)
    found = paired_permutation(before, after)
    assert found.exact
    assert found.floor == 1 / 16
    for name in METRICS:
        observed, far = distance(name, before.mean(0), after.mean(0)), []
        for exchanged in product([False, True], repeat=5):
            swap = np.array(exchanged)[:, None]
            first, second = np.where(swap, after, before), np.where(swap, before, after)
            far.append(distance(name, first.mean(0), second.mean(0)))
        assert found.p[name] == pytest.approx(np.mean(np.array(far) >= observed * (1 - 1e-9))), name
        unchanged = 1.0 if name == "spearman" else 0.0
        assert abs(found.expected[name] - unchanged) == pytest.approx(np.mean(far)), name
        if name in ("js", "wasserstein"):
            square = max(0.0, observed**2 - np.mean(np.square(far))) * 5 / 4
            assert found.corrected[name] == pytest.approx(np.sqrt(square)), name
    assert found.corrected["spearman"] == pytest.approx(min(1.0, 1 - (1 - rho(before, after) - off(found)) * 5 / 4))
    assert set(found.corrected) == {"js", "wasserstein", "spearman"}


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
    """Two measurements of each example that only noise tells apart, 2000 times."""
    rng, trials = np.random.default_rng(examples), 2000
    reached = dict.fromkeys(("js", "wasserstein", "centre_move", "log_total_ratio"), 0)
    for trial in range(trials):
        level = measured(rng, examples)
        pair = (level * rng.gamma(9.0, 1 / 9, size=level.shape) for _ in range(2))
        found = paired_permutation(*pair, draws=99, seed=trial)
        reached = {name: n + (found.p[name] <= 0.05) for name, n in reached.items()}
    for name, rejected in reached.items():
        assert rejected / trials == pytest.approx(0.05, abs=0.015), name  # 3 standard errors


def test_the_corrected_distance_is_freed_of_what_noise_adds() -> None:
    """On average over 400 sets of 12 examples, of a shift as large as the noise: the square is what is unbiased."""
    rng = np.random.default_rng(7)
    tilt = np.linspace(0.95, 1.05, 6)
    true = METRICS["js"](np.ones(6), tilt)
    squares: dict[str, list[float]] = {"corrected": [], "value": [], "expected": []}
    for trial in range(400):
        before = measured(rng, 12)
        after = before * tilt * rng.gamma(60.0, 1 / 60, size=before.shape)
        found = paired_permutation(before, after, draws=199, seed=trial)
        observed = METRICS["js"](before.mean(0), after.mean(0))
        far = found.corrected["js"]
        squares["value"].append(observed**2)
        squares["corrected"].append(far**2)
        squares["expected"].append(found.expected["js"] ** 2)
    mean = {name: float(np.mean(values)) for name, values in squares.items()}
    assert mean["value"] > 2 * true**2
    assert mean["corrected"] == pytest.approx(true**2, rel=0.25)  # the cut at 0 adds a little
    assert mean["expected"] < mean["value"]


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

from __future__ import annotations

import numpy as np
import pytest

from textkeep.evaluation import common_items, hierarchical_bootstrap, paired_bootstrap


def test_it_resamples_what_a_plain_loop_over_indices_resamples() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(0, 1, size=30)
    after = items + rng.normal(0.4, 0.3, size=(4, 1)) + rng.normal(0, 0.5, size=(4, 30))
    before = items + rng.normal(0, 0.3, size=(3, 1)) + rng.normal(0, 0.5, size=(3, 30))
    drawn = []
    for _ in range(6000):
        chosen = rng.integers(30, size=30)
        ours, theirs = rng.integers(4, size=4), rng.integers(3, size=3)
        drawn.append(after[ours][:, chosen].mean() - before[theirs][:, chosen].mean())
    result = hierarchical_bootstrap(after, before)
    assert result.estimate == pytest.approx(after.mean() - before.mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.03)
    assert result.p_value == pytest.approx(2 * np.mean(np.array(drawn) <= 0), abs=0.03)


def test_it_gives_the_published_standard_error_of_one_sample() -> None:
    # Efron and Tibshirani 1993, An Introduction to the Bootstrap, table 2.2: the mean of the seven treated mice is
    # 86.86, its bootstrap standard error for ever more resamples 23.36.
    mice = [94, 197, 16, 38, 99, 141, 23]
    result = hierarchical_bootstrap(mice, confidence=0.6827, resamples=40000)
    assert result.estimate == pytest.approx(86.86, abs=5e-3)
    assert (result.high - result.low) / 2 == pytest.approx(23.36, abs=0.5)


def test_with_one_seed_it_is_the_paired_bootstrap_over_items() -> None:
    rng = np.random.default_rng(1)
    before, after = (rng.random(80) < 0.5).astype(float), (rng.random(80) < 0.7).astype(float)
    plain, result = paired_bootstrap(list(before), list(after)), hierarchical_bootstrap(after, before)
    assert result[:3] == pytest.approx(plain, abs=0.02)


def test_seeds_that_differ_widen_the_interval() -> None:
    items = np.random.default_rng(2).random((1, 100))
    alike = hierarchical_bootstrap(np.repeat(items, 3, axis=0), items)
    apart = hierarchical_bootstrap(items + np.array([[-0.3], [0.0], [0.3]]), items)
    assert alike.high - alike.low < 1e-9
    assert apart.high - apart.low > 0.4


def test_its_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(150):
        shape = (8, 40)
        items, seeds = rng.normal(0, 1, size=(1, 40)), rng.normal(0, 0.3, size=(8, 1))
        after = items + 0.25 + seeds + rng.normal(0, 1, size=shape)
        before = items + rng.normal(0, 1, size=(1, 40))
        result = hierarchical_bootstrap(after, before, resamples=400, seed=trial)
        covered += result.low <= 0.25 <= result.high
    assert 0.88 <= covered / 150 <= 0.99


def test_it_is_repeatable_and_refuses_unmatched_items() -> None:
    scores = np.random.default_rng(4).random((2, 9))
    assert hierarchical_bootstrap(scores) == hierarchical_bootstrap(scores)
    assert hierarchical_bootstrap([[1.0]]) == (1.0, float("-inf"), float("inf"), 1.0)
    with pytest.raises(ValueError, match="same items expected"):
        hierarchical_bootstrap(scores, scores[:, :3])
    with pytest.raises(ValueError, match="same items expected"):
        hierarchical_bootstrap([])


def test_a_tie_is_one_whatever_the_rounding_of_its_sums() -> None:
    rng = np.random.default_rng(3)
    after, before = (rng.integers(0, 2, (3, 40)).astype(float) for _ in range(2))
    exact, rounded = hierarchical_bootstrap(after, before), hierarchical_bootstrap(after * 0.1, before * 0.1)
    assert exact.p_value == rounded.p_value
    same = hierarchical_bootstrap(after * 0.1, (after * 0.1)[[2, 0, 1]])
    assert same.p_value == 1.0


def test_common_items_puts_them_in_one_order() -> None:
    ours, theirs = common_items([{"b": 1.0, "a": 0.0}, {"a": 1.0, "b": 0.0, "c": 1.0}], [{"b": 0.5, "a": 0.25}])
    assert ours.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert theirs.tolist() == [[0.25, 0.5]]

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from textkeep.evaluation import (
    NOT_NEGATIVE,
    Prediction,
    bootstrap_ratio,
    mean_interval,
    paired_bootstrap,
    share_interval,
    summarize,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_gives_the_published_limits(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, trials)
    assert interval.estimate == successes / trials
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_interval_of_no_items_says_nothing() -> None:
    interval = wilson_interval(0, 0)
    assert math.isnan(interval.estimate)
    assert (interval.low, interval.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="successes must lie in"):
        wilson_interval(3, 2)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(2.0, 3.0, size=400)
    interval = paired_bootstrap([0.0] * 400, list(values))
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        tokens = rng.integers(1, 9, size=60)
        losses = tokens * 0.5 + rng.normal(0, 1, size=60)
        interval = bootstrap_ratio(list(losses), list(tokens), resamples=400, seed=trial)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.parametrize("items", [2, 4, 10, 24])
def test_few_items_are_covered_too(items: int) -> None:
    """A percentile bootstrap alone covers 50 % with two items and 80 % with four."""
    rng, covered, trials = np.random.default_rng(items), 0, 400
    for trial in range(trials):
        tokens = rng.integers(2, 7, size=items)
        sums = tokens * 0.5 + np.sqrt(tokens) * rng.normal(0, 1, size=items)
        interval = bootstrap_ratio(list(sums), list(tokens), resamples=100, seed=trial)
        covered += interval.low <= 0.5 <= interval.high
    assert covered / trials > 0.925


def test_of_few_items_the_limits_are_students_where_these_reach_further() -> None:
    values = [0.3, 0.9, 1.1, 0.7]
    student = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    interval = paired_bootstrap([0.0] * 4, values)
    assert (interval.low, interval.high) == pytest.approx((student.low, student.high))
    assert bootstrap_ratio([1.0, 2.0], [1.0, 1.0]).low < 0  # two positive items do not show that all are


def test_limits_of_a_loss_stay_above_zero_and_those_of_a_difference_need_not() -> None:
    wide = bootstrap_ratio([0.0, 0.001, 0.02], [1.0, 1.0, 1.0])
    assert wide.low < 0
    assert bootstrap_ratio([0.0, 0.001, 0.02], [1.0, 1.0, 1.0], bounds=NOT_NEGATIVE) == wide._replace(low=0.0)
    written = [
        Prediction(f"q{i}", "text", "?", ("x",), "x", True, loss=loss, tokens=1)
        for i, loss in enumerate((0.0, 0.001, 0.02))
    ]
    summary = summarize(written, [replace(one, loss=(one.loss or 0.0) - 0.001) for one in written])
    assert summary.intervals["text_answer_loss"][0] == 0.0
    apart = [replace(one, loss=0.01) for one in written]
    assert summarize(written, apart).intervals["text_loss_change"][0] < 0


def test_bootstrap_ratio_weighs_by_the_denominator_and_is_repeatable() -> None:
    interval = bootstrap_ratio([3.0, 1.0, 4.0], [1.0, 3.0, 4.0])
    assert interval.estimate == 1.0
    assert interval == bootstrap_ratio([3.0, 1.0, 4.0], [1.0, 3.0, 4.0])
    assert interval != bootstrap_ratio([3.0, 1.0, 4.0], [1.0, 3.0, 4.0], seed=3, resamples=50)


def test_bootstrap_of_degenerate_samples() -> None:
    assert bootstrap_ratio([2.0], [1.0]) == (2.0, float("-inf"), float("inf"))
    # One item right before: resamples without it have no ratio and are left out.
    interval = bootstrap_ratio([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    assert (interval.estimate, interval.low, interval.high) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="paired items"):
        bootstrap_ratio([], [])
    with pytest.raises(ValueError, match="paired items"):
        paired_bootstrap([1.0], [1.0, 2.0])


def test_bootstrap_of_a_ratio_gives_the_published_standard_error() -> None:
    # Efron and Tibshirani 1993, An Introduction to the Bootstrap, table 10.1 (patch data): theta = -0.0713,
    # bootstrap standard error 0.105 (section 10.3). The limits around 68.3 % stand about one of it away.
    old_minus_placebo = [8406, 2342, 8187, 8459, 4795, 3516, 4796, 10238]
    new_minus_old = [-1200, 2601, -2705, 1982, -1290, 351, -638, -2719]
    interval = bootstrap_ratio(new_minus_old, old_minus_placebo, confidence=0.6827)
    assert interval.estimate == pytest.approx(-0.0713, abs=5e-5)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.105, abs=0.01)


def test_a_share_of_whole_items_is_wilsons_and_parts_that_go_together_count_as_one() -> None:
    right = [1.0] * 5 + [0.0] * 24
    assert share_interval(right, [1.0] * 29) == pytest.approx(wilson_interval(5, 29))
    assert share_interval([3.0 * hit for hit in right], [3.0] * 29) == pytest.approx(wilson_interval(5, 29))
    apart = share_interval([1.0, 2.0] * 15, [3.0] * 30)  # parts that do not go together: never more than they are
    assert apart == pytest.approx(wilson_interval(45, 90))


def test_a_share_does_not_collapse_where_all_items_agree_and_covers() -> None:
    for hits, share in (([2.0, 1.0, 3.0], 1.0), ([0.0, 0.0, 0.0], 0.0), ([1.0, 0.5, 1.5], 0.5)):
        found = share_interval(hits, [2.0, 1.0, 3.0])
        assert found.estimate == pytest.approx(share)
        assert found.high - found.low > 0.5
    rng, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        parts = rng.integers(1, 4, size=40)
        hits = rng.binomial(parts, rng.beta(9, 3, size=40))
        found = share_interval(list(hits), list(parts))
        covered += found.low <= 0.75 <= found.high
    assert 0.93 <= covered / 1000 <= 0.975
    for wrong in (([2.0], [1.0]), ([], []), ([1.0], [1.0, 1.0]), ([-1.0], [1.0])):
        with pytest.raises(ValueError, match="hits within parts expected"):
            share_interval(*wrong)


def test_the_interval_of_a_distance_stays_within_its_bounds() -> None:
    found = mean_interval([0.01, 0.9], bounds=(0.0, 1.0))
    assert (found.low, found.high) == (0.0, 1.0)
    assert mean_interval([0.4, 0.5, 0.6], bounds=(0.0, 1.0)) == mean_interval([0.4, 0.5, 0.6])

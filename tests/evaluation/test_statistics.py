from __future__ import annotations

import math

import numpy as np
import pytest

from textkeep.evaluation import (
    bootstrap_ratio,
    holm,
    mcnemar_exact,
    paired_bootstrap,
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


def test_mcnemar_gives_the_published_exact_p_value() -> None:
    # The standard example of 161 subjects, discordant 6 and 16: exact two-sided p = 0.0525 (mid-p 0.035).
    before = [True] * 59 + [True] * 6 + [False] * 16 + [False] * 80
    after = [True] * 59 + [False] * 6 + [True] * 16 + [False] * 80
    result = mcnemar_exact(before, after)
    assert (result.lost, result.gained) == (6, 16)
    assert result.p_value == pytest.approx(2 * sum(math.comb(22, k) for k in range(7)) / 2**22)
    assert result.p_value == pytest.approx(0.0525, abs=5e-5)


def test_mcnemar_without_discordant_items() -> None:
    assert mcnemar_exact([True, False], [True, False]).p_value == 1.0
    with pytest.raises(ValueError, match="paired items"):
        mcnemar_exact([True], [True, False])


def test_holm_gives_the_textbook_adjustment() -> None:
    # Four hypotheses of the usual worked example; adjusted = running maximum of (m - rank) p.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


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

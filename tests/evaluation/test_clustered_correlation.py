"""Correlations of runs against scipy, statsmodels and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from textkeep.evaluation import correlation, mean_interval


def test_it_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 20).astype(float)  # ties
    y = x + rng.standard_normal(20) * 4
    spearman, pearson = correlation(x, y), correlation(x, y, ranks=False)
    assert spearman.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert pearson.estimate == pytest.approx(stats.pearsonr(x, y).statistic)
    limits = stats.pearsonr(x, y).confidence_interval(0.95, stats.BootstrapMethod(method="percentile", rng=1))
    assert pearson.low == pytest.approx(limits.low, abs=0.06)
    assert pearson.high == pytest.approx(limits.high, abs=0.04)
    assert spearman.low < spearman.estimate < spearman.high
    assert correlation(x, y) == spearman


def test_the_partial_one_is_that_of_the_residuals_of_a_regression_on_the_groups() -> None:
    rng = np.random.default_rng(1)
    groups = ["a"] * 6 + ["b"] * 5 + ["c"] * 4 + ["alone"]
    level = np.array([{"a": 0.0, "b": 5.0, "c": 11.0, "alone": 20.0}[g] for g in groups])
    inner = rng.standard_normal(16)
    x, y = level + inner, level - inner + 0.1 * rng.standard_normal(16)
    dummies = np.array([[g == name for name in ("a", "b", "c", "alone")] for g in groups], dtype=float)
    residuals = [sm.OLS(side, dummies).fit().resid for side in (x, y)]
    found = correlation(x, y, ranks=False, groups=groups)
    assert found.estimate == pytest.approx(np.corrcoef(*residuals)[0, 1])
    assert found.high < -0.9  # the groups alone make the plain one positive
    assert correlation(x, y, ranks=False).low > 0.9
    assert correlation(x, y, groups=groups).estimate < -0.7


def test_intervals_cover_the_true_value() -> None:
    rng, hits = np.random.default_rng(2), 0
    for trial in range(200):
        x = rng.standard_normal(30)
        y = 0.6 * x + 0.8 * rng.standard_normal(30)
        found = correlation(x, y, ranks=False, resamples=400, seed=trial)
        hits += found.low <= 0.6 <= found.high
    assert 0.88 < hits / 200 < 0.99


def test_whole_clusters_are_drawn() -> None:
    """Against a loop that puts whole arms together; and runs of an arm that are copies add nothing."""
    rng = np.random.default_rng(3)
    arms = [name for name in "abcdefgh" for _ in range(3)]
    level = np.repeat(rng.standard_normal(8), 3)
    x, y = level + 0.1 * rng.standard_normal(24), level + np.repeat(rng.standard_normal(8), 3)
    for ranks, statistic in ((True, stats.spearmanr), (False, stats.pearsonr)):
        found = correlation(x, y, ranks=ranks, clusters=arms)
        looped = []
        for _ in range(2000):
            drawn = np.concatenate([np.arange(3 * c, 3 * c + 3) for c in rng.integers(8, size=8)])
            looped.append(statistic(x[drawn], y[drawn]).statistic)
        assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(looped, [0.025, 0.975])), abs=0.06)
        assert found.high - found.low > 1.3 * np.subtract(*correlation(x, y, ranks=ranks)[:0:-1])
    few = correlation(x[:12], y[:12], clusters=arms[:12])
    assert (few.low, few.high) == (-1.0, 1.0)
    assert few.estimate == pytest.approx(stats.spearmanr(x[:12], y[:12]).statistic)
    with pytest.raises(ValueError, match="not both"):
        correlation(x, y, groups=arms, clusters=arms)


@pytest.mark.parametrize(
    ("x", "y", "groups"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], [1.0, 2.0, 3.0, 4.0], None),
        ([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], None),
        ([1.0, 1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0], ["a", "a", "b", "b", "c"]),
    ],
)
def test_what_is_not_defined_says_so(x: list[float], y: list[float], groups: list[str] | None) -> None:
    found = correlation(x, y, groups=groups)
    assert np.isnan(found.estimate)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_pairs_are_asked_for() -> None:
    with pytest.raises(ValueError, match="pairs expected, got 2 and 3"):
        correlation([1, 2], [1, 2, 3])


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.2, 0.5, 0.3]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = mean_interval(values)
    assert found == pytest.approx((np.mean(values), expected.low, expected.high))
    assert mean_interval([2.0]) == (2.0, float("-inf"), float("inf"))
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])

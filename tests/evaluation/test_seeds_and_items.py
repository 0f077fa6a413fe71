"""The crossed t: against an analysis of variance, its limits where one part is nil, and its size and coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from textkeep.evaluation import common_items, crossed_t
from textkeep.evaluation.seeds_and_items import half_width, variances, with_pseudo_items

SEEDS = (1, 2, 3, 5, 8)


def scores(rng: np.random.Generator, shape: tuple[int, ...], seed: float, item: float, noise: float) -> np.ndarray:
    """(..., seeds, items) with standard deviations of seeds, items and noise, and mean zero."""
    *trials, seeds, items = shape
    between = seed * rng.normal(size=(*trials, seeds, 1)) + item * rng.normal(size=(*trials, 1, items))
    return between + noise * rng.normal(size=shape)


def test_its_parts_are_the_mean_squares_of_an_analysis_of_variance() -> None:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    values = scores(np.random.default_rng(0), (4, 30), 0.4, 1.0, 0.5)
    table = pd.DataFrame([(s, i, values[s, i]) for s in range(4) for i in range(30)], columns=["seed", "item", "y"])
    found = anova_lm(ols("y ~ C(seed) + C(item)", table).fit())["mean_sq"]
    seeds, items = variances([values]).parts
    assert (seeds.df, items.df) == (3, 29)
    assert seeds.variance == pytest.approx(found["C(seed)"] / 120)
    assert items.variance == pytest.approx((found["C(item)"] - found["Residual"]) / 120)
    result = crossed_t(values)
    half = np.sqrt(stats.t.ppf(0.975, 3) ** 2 * seeds.variance + stats.t.ppf(0.975, 29) ** 2 * items.variance)
    assert (result.low, result.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_with_one_seed_it_is_students_interval_over_items() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=80), rng.normal(0.2, 1.0, size=80)
    result, student = crossed_t(after - before), stats.ttest_rel(after, before)
    assert result.p_value == pytest.approx(student.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(student.confidence_interval()))
    assert result.seeds == 1


def test_where_items_are_alike_it_is_students_interval_over_seeds() -> None:
    by_seed = np.array([0.1, 0.2, 0.6])
    result, student = crossed_t(np.repeat(by_seed[:, None], 50, axis=1)), stats.ttest_1samp(by_seed, 0.0)
    assert result.p_value == pytest.approx(student.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(student.confidence_interval()))
    assert result.seeds == 3


def test_independent_runs_have_a_part_a_side_and_the_items_once() -> None:
    rng = np.random.default_rng(2)
    items = rng.normal(size=(1, 40))  # of both sides: no part of the difference
    after, before = items + rng.normal(size=(3, 1)) + 0.5, items + rng.normal(size=(4, 1))
    parts = variances([after, before]).parts
    assert [part.df for part in parts] == [2, 3, 39]
    assert parts[0].variance == pytest.approx(after.mean(axis=1).var(ddof=1) / 3)
    assert parts[1].variance == pytest.approx(before.mean(axis=1).var(ddof=1) / 4)
    assert parts[2].variance == pytest.approx(0.0, abs=1e-12)
    assert crossed_t(after, before).seeds == 3
    assert [part.df for part in variances([after, before[:1]]).parts] == [2, 39]  # a single run has no spread of seeds


def test_the_p_value_is_the_level_at_which_the_interval_ends_at_zero() -> None:
    rng = np.random.default_rng(3)
    for trial in range(20):
        values = scores(rng, (2 + trial % 4, 25), 0.3, 0.6, 0.8) + 0.1 * trial
        found = crossed_t(values)
        half = half_width(variances([values]), found.p_value)
        assert half == pytest.approx(abs(found.estimate), rel=1e-6)
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize(
    ("case", "seed", "item", "noise"),
    [("seeds", 1.0, 0.2, 0.2), ("items", 0.0, 1.0, 0.2), ("both", 0.15, 1.0, 0.5), ("noise", 0.0, 0.0, 1.0)],
)
def test_it_rejects_a_true_null_at_most_as_often_as_it_says(
    case: str, seed: float, item: float, noise: float, seeds: int
) -> None:
    """And as often, where one part dominates; for the same reason its interval covers. 20000 trials: +- 0.003."""
    trials, items = 20_000 if seeds < 5 else 8_000, 30
    found = scores(np.random.default_rng(seeds), (trials, seeds, items), seed if seeds > 1 else 0.0, item, noise)
    rejected = float((np.abs(found.mean(axis=(1, 2))) > half_width(variances([found]), 0.05)).mean())
    assert rejected < 0.058
    if case == "seeds" or (case == "items" and seeds > 2):
        assert rejected > 0.042


@pytest.mark.parametrize("seeds", SEEDS)
def test_shares_of_right_answers_are_covered_and_never_collapse(seeds: int) -> None:
    rng, trials, items = np.random.default_rng(seeds), 3000, 40
    for share in (0.5, 0.9, 0.98):
        right, other = (rng.random((2, trials, seeds, items)) < share).astype(float)
        for side, bounds, truth in ((right, (0.0, 1.0), share), (right - other, (-1.0, 1.0), 0.0)):
            wider = with_pseudo_items([side], *bounds)
            half = half_width(variances(wider), 0.05)
            assert (half > 0).all()
            assert (np.abs(wider[0].mean(axis=(1, 2)) - truth) <= half).mean() > 0.94
    same = crossed_t(np.zeros((seeds, 4)), bounds=(-1.0, 1.0))
    assert same.low < -0.3 < same.estimate < 0.3 < same.high
    assert same.p_value == 1.0
    all_right = crossed_t(np.ones((seeds, 4)), bounds=(0.0, 1.0))
    assert all_right.low < 0.75 < all_right.high == all_right.estimate == 1.0


def test_it_has_power_where_seeds_agree_and_none_to_give_away_where_they_do_not() -> None:
    items = 0.2 + 0.3 * np.random.default_rng(5).normal(size=(1, 100))
    alike, apart = items + 0.01 * np.array([[-1.0], [0.0], [1.0]]), items + 0.3 * np.array([[-1.0], [0.0], [1.0]])
    assert crossed_t(alike).p_value < 0.005
    assert crossed_t(apart).p_value > 0.05


def test_it_is_never_narrower_than_over_the_items_alone() -> None:
    """Two seeds that happen to agree in their means, and in nothing else."""
    rng, items = np.random.default_rng(6), np.linspace(-1.0, 1.2, 40)
    values = np.stack([rng.permutation(items) for _ in range(2)])
    student = stats.ttest_1samp(values.mean(axis=0), 0.0)
    found = crossed_t(values)
    assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval()))
    assert found.p_value == pytest.approx(student.pvalue)


def test_what_it_cannot_say_it_does_not_say() -> None:
    assert crossed_t([[1.0]]) == (1.0, float("-inf"), float("inf"), 1.0, 1)
    scored = np.random.default_rng(4).random((2, 9))
    with pytest.raises(ValueError, match="same items expected"):
        crossed_t(scored, scored[:, :3])
    with pytest.raises(ValueError, match="same items expected"):
        crossed_t([])
    assert crossed_t(scored * 0.1, (scored * 0.1)[[1, 0]]).p_value == 1.0  # a tie in whatever order it was summed


def test_common_items_puts_them_in_one_order() -> None:
    ours, theirs = common_items([{"b": 1.0, "a": 0.0}, {"a": 1.0, "b": 0.0, "c": 1.0}], [{"b": 0.5, "a": 0.25}])
    assert ours.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert theirs.tolist() == [[0.25, 0.5]]

"""Intervals of paired proportions: published limits, the score test by brute force, exact coverage, no collapse."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats

from textkeep.evaluation import paired_difference, paired_ratio

from .test_paired_tests import table


def test_they_give_the_published_limits_of_airway_hyperresponsiveness() -> None:
    # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850 (data of Bentur et al. 2009): 21 children,
    # 2 of them positive before and 8 after, discordant 1 and 7; Tango's interval of the difference -0.517 to -0.026.
    before, after = table(1, 7, 1, 12)
    assert paired_difference(before, after) == pytest.approx((-6 / 21, -0.517, -0.026), abs=5e-4)
    assert paired_ratio(before, after) == pytest.approx((0.25, 0.0677, 0.9227), abs=5e-4)


def score(lost: int, gained: int, items: int, delta: float) -> float:
    """The score statistic of a difference, the nuisance parameter found by a search: no formula of ours in it."""

    def minus_log_likelihood(share: float) -> float:
        cells = np.clip([share, share + delta, 1 - 2 * share - delta], 1e-12, 1.0)
        return -float(np.dot([lost, gained, items - lost - gained], np.log(cells)))

    limits = max(0.0, -delta), (1 - delta) / 2
    share = optimize.minimize_scalar(minus_log_likelihood, bounds=limits, method="bounded", options={"xatol": 1e-11}).x
    return (gained - lost - items * delta) ** 2 / (items * (2 * share + delta - delta**2))


@pytest.mark.parametrize("cells", [(1, 7, 1, 12), (5, 3, 0, 4), (10, 0, 0, 0), (30, 6, 16, 80), (0, 2, 2, 0)])
def test_the_limits_of_a_difference_are_where_the_score_test_rejects(cells: tuple[int, int, int, int]) -> None:
    found = paired_difference(*table(*cells))
    critical = stats.chi2.ppf(0.95, 1)
    assert [score(cells[1], cells[2], sum(cells), limit) for limit in found[1:]] == pytest.approx([critical] * 2, 1e-5)


def tables(items: int) -> list[tuple[int, int, int, int]]:
    return [cells for cells in product(range(items + 1), repeat=4) if sum(cells) == items]


@pytest.mark.parametrize("chances", [(0.5, 0.1, 0.1, 0.3), (0.6, 0.05, 0.2, 0.15), (0.9, 0.02, 0.02, 0.06)])
def test_they_cover_as_often_as_they_say(chances: tuple[float, float, float, float]) -> None:
    """Over every table of 16 items, weighed by its probability: no simulation."""
    both, lost, gained, _ = chances
    covered = [0.0, 0.0]
    for cells in tables(16):
        weight = float(stats.multinomial.pmf(cells, 16, chances))
        difference, ratio = (find(*table(*cells)) for find in (paired_difference, paired_ratio))
        covered[0] += weight * (difference.low <= gained - lost <= difference.high)
        covered[1] += weight * (ratio.low <= (both + gained) / (both + lost) <= ratio.high)
    assert min(covered) > 0.93


@pytest.mark.parametrize("items", [1, 2, 4, 7])
def test_no_table_of_few_items_gives_a_point(items: int) -> None:
    for cells in tables(items):
        found = paired_difference(*table(*cells))
        assert -1 <= found.low <= found.estimate <= found.high <= 1
        assert found.high - found.low > 0.2
        ratio = paired_ratio(*table(*cells))
        if math.isfinite(ratio.estimate):
            assert 0 <= ratio.low <= ratio.estimate <= ratio.high
            assert ratio.high > 1.2 * ratio.low


def test_four_questions_without_a_flip_say_little() -> None:
    before, after = table(4, 0, 0, 0)
    z = stats.norm.ppf(0.975) ** 2
    assert paired_difference(before, after) == pytest.approx((0.0, -z / (4 + z), z / (4 + z)), abs=1e-6)
    assert paired_ratio(before, after).low < 0.65
    assert math.isnan(paired_ratio([False] * 3, [True, False, False]).estimate)
    with pytest.raises(ValueError, match="paired items expected"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="paired items expected"):
        paired_ratio([], [])

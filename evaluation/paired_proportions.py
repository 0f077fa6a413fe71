"""Intervals for the change between two classifications of the same items; none of them can collapse to a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import scipy  # scipy loads its parts on use, so commands that only display wait for none

from .statistics import Interval

_ASIDE = 1e-9  # around the observed difference, where the test's variance may be zero: no interval ends there


def paired_difference(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Returns Tango's score interval of a difference of proportions of the same items, share after minus before.

    It contains all differences that the score test does not reject (Tango 1998, Statistics in Medicine 17:891). Without
    any discordant item it is ``[-z^2 / (n + z^2), z^2 / (n + z^2)]``: few items cannot show that nothing changed.

    Args:
        before: Correctness of each item under the first condition.
        after: Correctness of the same items, in the same order, under the second.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: If the two sequences differ in length or are empty.
    """
    _, lost, gained, _ = _table("paired_difference", before, after)
    items, z = len(before), float(scipy.stats.norm.isf((1 - confidence) / 2))
    difference = (gained - lost) / items

    def excess(delta: float) -> float:
        return (gained - lost - items * delta) ** 2 - z**2 * _score_variance(lost, gained, items, delta)

    low = -1.0 if lost == items else float(scipy.optimize.brentq(excess, -1.0, difference - _ASIDE))
    high = 1.0 if gained == items else float(scipy.optimize.brentq(excess, difference + _ASIDE, 1.0))
    return Interval(difference, low, high)


def _score_variance(lost: int, gained: int, items: int, delta: float) -> float:
    """Returns the variance of gained minus lost if the difference is delta, at the most likely share of lost items."""
    linear = -lost - gained + (2 * items - gained + lost) * delta
    constant = -lost * delta * (1 - delta)
    share = (math.sqrt(max(linear**2 - 8 * items * constant, 0.0)) - linear) / (4 * items)
    return items * (2 * share + delta * (1 - delta))


def paired_ratio(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Returns the interval of a ratio of proportions of the same items, share after over share before.

    Wilson's intervals of both shares, among the items that were right at least once, narrowed for the correlation and
    combined (Bonett and Price 2006, Statistics in Medicine 25:3039), as Fagerland, Lydersen and Laake recommend (2014,
    Statistics in Medicine 33:2850).

    Args:
        before: Correctness of each item under the first condition.
        after: Correctness of the same items, in the same order, under the second.
        confidence: Coverage, between 0 and 1.

    Returns:
        The ratio with its limits; NaN in [0, inf] where no item was right before.

    Raises:
        ValueError: If the two sequences differ in length or are empty.
    """
    both, lost, gained, _ = _table("paired_ratio", before, after)
    first, second, ever = both + lost, both + gained, both + lost + gained
    if not first:
        return Interval(math.nan, 0.0, math.inf)
    joint = math.sqrt((lost + gained + 2) / ((first + 1) * (second + 1)))
    apart = sum(math.sqrt((1 - (count + 1) / (ever + 2)) / (count + 1)) for count in (first, second))
    z = joint / apart * float(scipy.stats.norm.isf((1 - confidence) / 2))
    (low_first, high_first), (low_second, high_second) = (_wilson(count, ever, z) for count in (first, second))
    high = high_second / low_first if low_first > 0 else math.inf
    return Interval(second / first, low_second / high_first, high)


def _wilson(count: int, trials: int, z: float) -> tuple[float, float]:
    centre, half = 2 * count + z**2, z * math.sqrt(z**2 + 4 * count * (1 - count / trials))
    return max(centre - half, 0.0) / (2 * (trials + z**2)), (centre + half) / (2 * (trials + z**2))


def _table(name: str, before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, int, int]:
    """Counts items right both times, lost, gained, and right at neither."""
    if len(before) != len(after) or not len(before):
        raise ValueError(f"{name}: paired items expected, got {len(before)} and {len(after)}")
    pairs = [(bool(b), bool(a)) for b, a in zip(before, after, strict=True)]
    return (
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
        pairs.count((False, False)),
    )

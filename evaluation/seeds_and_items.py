"""How certain a score or a difference between training recipes is, given few seeds of each on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # scipy loads its parts on use, so commands that only display wait for none
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

_ROUNDING = 1e-12  # of sums, beside the largest score
_SMALLEST_LOG_P = -300.0  # the square of the quantile of one degree of freedom is still a number


class Estimate(NamedTuple):
    """Result of :func:`crossed_t`.

    Attributes:
        estimate: The mean, or the difference of means.
        low: Lower confidence limit.
        high: Upper confidence limit.
        p_value: Two-sided, of the hypothesis that it is zero; of a t statistic, so without a floor.
        seeds: How many seeds the limits rest on. With one, they are over items only: they show how other items would
            have scored the same runs, and nothing about other seeds.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    seeds: int


class Part(NamedTuple):
    """An independent part of the variance of an estimate.

    Attributes:
        variance: Estimated, (...).
        df: Its degrees of freedom.
    """

    variance: Matrix
    df: int


class Spread(NamedTuple):
    """What makes an estimate vary.

    Attributes:
        parts: Independent ones: of the seeds of each side, noise included, and of the items.
        items: The spread between items alone, noise included: the total is never less.
    """

    parts: list[Part]
    items: Part


def crossed_t(
    after: ArrayLike,
    before: ArrayLike | None = None,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Returns Student's interval of a mean over random seeds and random items, or of a difference of two.

    All runs answered the same items, so seeds and items are crossed. In the model ``score = mean + seed + item +
    noise`` the mean squares give the variance of the mean over all, ``s2(seed means) / k + s2(items) / n``: the first
    part holds the noise, the second is ``s2(item means) / n`` less the noise in it (Searle, Casella and McCulloch 1992,
    Variance Components, section 4.3). Each part has its own quantile: ``half width^2 = sum of t(df)^2 variance``
    (Banerjee 1960, Sankhya 22:357), and never less than that of the items alone. With normal seeds and items that
    covers at least as often as it says, for any number of seeds and whichever part dominates; Satterthwaite's
    approximation rejects up to twice too often with two seeds. If items do not matter, it is Student's interval over
    the seeds' means; if seeds do not matter, that over items.

    To compare runs of the same seed with each other, pass one matrix of differences.

    Args:
        after: (seeds, items) or (items,), a score for each run and item.
        before: (seeds, items) or (items,) of independent runs on the same items in the same order. A side with one run,
            such as the base model, has no spread over seeds.
        bounds: Lowest and highest value of shares of right answers (0, 1) or of their differences (-1, 1). Then the
            spread is that with two pseudo-items more at each end of (0, 1), or one at each end of (-1, 1), so that an
            interval cannot collapse where all answers agree (Agresti and Coull 1998; Bonett and Price 2012), and the
            limits stay within the bounds.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: If there is no item, or the two sides have different numbers of items.
    """
    sides = [_matrix(after)] if before is None else [_matrix(after), _matrix(before)]
    if len({side.shape[1] for side in sides}) > 1 or not sides[0].size:
        shapes = " and ".join(str(side.shape) for side in sides)
        raise ValueError(f"crossed_t: (seeds, items) with the same items expected, got {shapes}")
    estimate = _mean(sides)
    seeds = min(len(side) for side in sides)
    if sides[0].shape[1] < 2:  # one item says nothing about the spread between items
        return Estimate(estimate, -math.inf, math.inf, 1.0, seeds)
    spread = sides if bounds is None else with_pseudo_items(sides, *bounds)
    centre, found = _mean(spread), variances(spread)
    half = float(half_width(found, 1 - confidence))
    low, high = min(centre - half, estimate), max(centre + half, estimate)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    tie = _ROUNDING * max(np.abs(side).max() for side in sides)  # whatever the order in which it was summed
    return Estimate(estimate, low, high, _p_value(0.0 if abs(centre) <= tie else centre, found), seeds)


def common_items(runs: Sequence[dict[str, float]], *others: Sequence[dict[str, float]]) -> list[Matrix]:
    """Arranges the runs' scores by item as matrices over the items that all runs of all sides share.

    Args:
        runs: One mapping item -> score per run.
        others: Further sides.

    Returns:
        A (seeds, items) matrix per side, the items in the same order.
    """
    sides = (runs, *others)
    shared = set.intersection(*(set(run) for side in sides for run in side))
    return [np.array([[run[item] for item in sorted(shared)] for run in side], dtype=np.float64) for side in sides]


def variances(sides: Sequence[Matrix]) -> Spread:
    """Returns what seeds and items contribute to the variance of a mean, or of a difference of two.

    Args:
        sides: One or two (..., seeds, items), the same items in the same order.
    """
    items = sides[0].shape[-1]
    alone = _difference([side.mean(axis=-2) for side in sides]).var(axis=-1, ddof=1) / items
    between_items = alone
    found = []
    for side in sides:
        seeds = side.shape[-2]
        if seeds < 2:
            continue
        means = side.mean(axis=-1, keepdims=True)
        noise = side - means - side.mean(axis=-2, keepdims=True) + side.mean(axis=(-2, -1), keepdims=True)
        between_items = between_items - (noise**2).sum(axis=(-2, -1)) / ((seeds - 1) * (items - 1) * seeds * items)
        found.append(Part(means[..., 0].var(axis=-1, ddof=1) / seeds, seeds - 1))
    return Spread([*found, Part(np.maximum(between_items, 0.0), items - 1)], Part(alone, items - 1))


def half_width(spread: Spread, level: float) -> Matrix:
    """Returns half the width (...) of the interval of confidence ``1 - level``."""
    return np.maximum(_combined(spread.parts, level), _combined([spread.items], level))


def with_pseudo_items(sides: Sequence[Matrix], low: float, high: float) -> list[Matrix]:
    """Adds items, half of them at either bound: (..., seeds, items + 2 or 4); of two sides, as their difference."""
    count = max(1, round(2 / (high - low)))
    alone, apart = [np.repeat([low, high], count)], [np.array([0.0, 1.0]), np.array([1.0, 0.0])]
    ends = alone if len(sides) == 1 else apart
    added = [np.broadcast_to(end, (*side.shape[:-1], len(end))) for side, end in zip(sides, ends, strict=True)]
    return [np.concatenate([side, more], axis=-1) for side, more in zip(sides, added, strict=True)]


def _matrix(values: ArrayLike) -> Matrix:
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _difference(values: Sequence[Matrix]) -> Matrix:
    return values[0] if len(values) == 1 else values[0] - values[1]


def _mean(sides: Sequence[Matrix]) -> float:
    return float(_difference([side.mean() for side in sides]))


def _combined(parts: Sequence[Part], level: float) -> Matrix:
    return np.sqrt(sum(float(scipy.stats.t.isf(level / 2, part.df)) ** 2 * part.variance for part in parts))


def _p_value(distance: float, spread: Spread) -> float:
    """Finds the level at which the interval ends at zero."""
    return max(_p_of(distance, spread.parts), _p_of(distance, [spread.items]))


def _p_of(distance: float, parts: Sequence[Part]) -> float:
    acting = [part for part in parts if part.variance > 0]
    if distance == 0:
        return 1.0
    if not acting:
        return 0.0
    if len(acting) == 1:
        return float(2 * scipy.stats.t.sf(abs(distance) / math.sqrt(acting[0].variance), acting[0].df))

    def excess(log_level: float) -> float:
        return float(_combined(acting, math.exp(log_level))) - abs(distance)

    if excess(_SMALLEST_LOG_P) <= 0:
        return math.exp(_SMALLEST_LOG_P)
    return math.exp(float(scipy.optimize.brentq(excess, _SMALLEST_LOG_P, 0.0)))

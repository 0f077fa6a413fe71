"""What a difference between two training recipes is worth, when each was run with several seeds on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 9999
_ROUNDING = 1e-12  # of sums, beside the largest score
_BATCH_ELEMENTS = 4_000_000  # resampled weights held at once: bounds the memory to about 100 MB


class Estimate(NamedTuple):
    """Result of :func:`hierarchical_bootstrap`.

    Attributes:
        estimate: The mean, or the difference of means.
        low: Lower confidence limit.
        high: Upper confidence limit.
        p_value: Two-sided, of the hypothesis that it is zero.
    """

    estimate: float
    low: float
    high: float
    p_value: float


def hierarchical_bootstrap(
    after: ArrayLike,
    before: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap over seeds and items of a mean, or of the difference of two means.

    All runs answered the same items, so seeds and items are crossed, not nested: each resample draws the items once,
    for all runs of both sides (that is the pairing), and the runs of each side (Owen 2007, "The pigeonhole bootstrap",
    Annals of Applied Statistics 1:386). A side with one row, such as the untouched model, has no spread over seeds.

    With k seeds the bootstrap sees only (k - 1) / k of the variance between seeds: limits from three seeds are somewhat
    too narrow in that part.

    Args:
        after: (seeds, items) or (items,), a score for each run and item.
        before: (seeds, items) or (items,) of the condition to compare with, the same items in the same order.
        confidence: Coverage, between 0 and 1.
        resamples: Bootstrap samples.
        seed: Of the resampling; the same seed gives the same limits.

    Returns:
        Mean of ``after``, or mean of ``after`` minus mean of ``before``. The p-value inverts the percentile interval:
        twice the smaller share of resamples at or beyond zero, the sample itself counted as one of them (Davison and
        Hinkley 1997, section 4.4).

    Raises:
        ValueError: If there is no item, or the two sides have different numbers of items.
    """
    sides = [_matrix(after)] if before is None else [_matrix(after), _matrix(before)]
    if len({side.shape[1] for side in sides}) > 1 or not sides[0].size:
        shapes = " and ".join(str(side.shape) for side in sides)
        raise ValueError(f"hierarchical_bootstrap: (seeds, items) with the same items expected, got {shapes}")
    signs = (1.0, -1.0)
    estimate = float(sum(sign * side.mean() for sign, side in zip(signs, sides, strict=False)))
    items = sides[0].shape[1]
    if items < 2:  # one item says nothing about the spread between items
        return Estimate(estimate, float("-inf"), float("inf"), 1.0)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, step := max(1, _BATCH_ELEMENTS // items)):
        count = min(step, resamples - start)
        weights = _weights(rng, count, items)
        drawn = [_means(_weights(rng, count, len(side)), side, weights) for side in sides]
        parts.append(sum(sign * mean for sign, mean in zip(signs, drawn, strict=False)))
    samples = np.concatenate(parts)
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    zero = _ROUNDING * max(np.abs(side).max() for side in sides)  # a tie stays one in whatever order it was summed
    tail = min(int((samples <= zero).sum()), int((samples >= -zero).sum()))
    return Estimate(estimate, float(low), float(high), min(1.0, 2 * (tail + 1) / (resamples + 1)))


def common_items(runs: Sequence[dict[str, float]], *others: Sequence[dict[str, float]]) -> list[NDArray[np.float64]]:
    """Scores by item, of several runs each, as matrices over the items that all runs of all sides have.

    Args:
        runs: One mapping item -> score a run.
        others: Further sides.

    Returns:
        A (seeds, items) matrix a side, the items in one order.
    """
    sides = (runs, *others)
    shared = set.intersection(*(set(run) for side in sides for run in side))
    return [np.array([[run[item] for item in sorted(shared)] for run in side], dtype=np.float64) for side in sides]


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _weights(rng: np.random.Generator, count: int, units: int) -> NDArray[np.float64]:
    """(count, units): how often each unit was drawn, as a share."""
    return rng.multinomial(units, np.full(units, 1 / units), size=count) / units


def _means(seeds: NDArray[np.float64], scores: NDArray[np.float64], items: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of each resample: (R, S), (S, N), (R, N) -> (R,)."""
    return np.einsum("rs,rs->r", seeds, items @ scores.T)

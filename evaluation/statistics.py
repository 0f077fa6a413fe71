"""How certain a figure is: confidence intervals over items for proportions, ratios and paired differences."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy loads its parts on use, so commands that only display wait for none
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEW_ITEMS = 30
"""Below this many items, a nominal 95 % percentile bootstrap covers less than 94 %; with four, about 80 %."""

NOT_NEGATIVE = (0.0, math.inf)
"""Bounds of a loss, a divergence or an error rate."""

_RESAMPLES = 9999
_BATCH_ELEMENTS = 4_000_000  # resampled indices held at once: bounds the memory of a bootstrap to about 100 MB


class Interval(NamedTuple):
    """An estimate with its confidence limits.

    Attributes:
        estimate: The statistic on the observed items.
        low: Lower confidence limit.
        high: Upper confidence limit.
    """

    estimate: float
    low: float
    high: float


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Returns Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Args:
        successes: Items that were right.
        trials: All items; 0 gives the vacuous interval [0, 1] around NaN.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: If there are more successes than trials, or a count is negative.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"wilson_interval: successes must lie in [0, trials={trials}], got {successes}")
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    limits = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(successes / trials, float(limits.low), float(limits.high))


def share_interval(hits: Sequence[float], parts: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns Wilson's interval of a share if items have several parts or are partly right.

    The share is that of the hits in all parts (instructions followed, tokens in common, words recognised). Parts of an
    item are correlated, so Wilson's formula is given the number of independent parts that corresponds to the spread
    between items (Korn and Graubard 1998, Survey Methodology 24:193; Dean and Pagano 2015, Journal of Survey Statistics
    and Methodology 3:484): never more than there are parts, and the number of items if there is no spread. So it does
    not collapse if all items agree.

    Args:
        hits: One value per item, at most its parts.
        parts: Number of parts of each item, 1 where it has only one.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: If the lengths differ, there is no part, or the hits are not among the parts.
    """
    top, bottom = np.asarray(hits, dtype=np.float64), np.asarray(parts, dtype=np.float64)
    if len(top) != len(bottom) or not bottom.sum() > 0 or not bool(((top >= 0) & (top <= bottom)).all()):
        raise ValueError(f"share_interval: hits within parts expected, got {len(top)} and {len(bottom)} items")
    from statsmodels.stats.proportion import proportion_confint

    items, share = len(top), float(top.sum() / bottom.sum())
    spread = float(((top - share * bottom) ** 2).sum()) / float(bottom.sum()) ** 2
    worth = min(share * (1 - share) / spread, float(bottom.sum())) if spread > 0 else float(items)
    low, high = proportion_confint(share * worth, worth, 1 - confidence, method="wilson")
    return Interval(share, min(max(float(low), 0.0), share), max(min(float(high), 1.0), share))


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Bootstraps a ratio of sums over items; the limits are percentiles.

    A loss per token is the ratio of summed losses to summed tokens; an ordinary mean has ones as denominators. Items
    are resampled whole, so everything that belongs to an item stays together. Do not use it for shares of right
    answers: if all items agree, so do all resamples, and the interval vanishes (:func:`wilson_interval`,
    :func:`share_interval`).

    Resamples of few items are too much alike (of two positive items, all are positive): below
    ``FEW_ITEMS`` the limits reach at least as far as Student's.

    Args:
        numerators: One value per item.
        denominators: One value per item.
        confidence: Coverage, between 0 and 1.
        resamples: Bootstrap samples.
        seed: Seed of the resampling; the same seed gives the same limits.
        bounds: Lowest and highest value that the ratio can have, such as ``NOT_NEGATIVE`` of a loss (a difference of
            losses may be negative): the limits stay within.

    Raises:
        ValueError: If the lengths differ or there is no item.
    """
    if len(numerators) != len(denominators) or not len(numerators):
        raise ValueError(f"bootstrap_ratio: paired items expected, got {len(numerators)} and {len(denominators)}")
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)

    def ratio(a: Any, b: Any, axis: int = -1) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sum(a, axis=axis) / np.sum(b, axis=axis)

    estimate = float(ratio(top, bottom))
    if len(top) < 2:  # one item says nothing about the spread between items
        return Interval(estimate, float("-inf"), float("inf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # degenerate samples show in the limits themselves
        result = scipy.stats.bootstrap(
            (top, bottom),
            ratio,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _BATCH_ELEMENTS // len(top)),
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    # A resample with a zero denominator has no ratio: the limits come from those that have one.
    drawn = result.bootstrap_distribution[np.isfinite(result.bootstrap_distribution)]
    if not len(drawn):
        return Interval(estimate, float("-inf"), float("inf"))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    if len(top) < FEW_ITEMS:
        half = _students_half(top, bottom, confidence)
        low, high = min(low, estimate - half), max(high, estimate + half)
    return Interval(estimate, max(float(low), bounds[0]), min(float(high), bounds[1]))


def _students_half(top: Array, bottom: Array, confidence: float) -> float:
    """Returns half of Student's interval of a ratio of sums, from its linearisation (Cochran 1977, section 2.11)."""
    items = len(top)
    rest = top - top.sum() / bottom.sum() * bottom
    error = np.sqrt(items / (items - 1) * (rest**2).sum()) / abs(bottom.sum())
    return float(scipy.stats.t.ppf((1 + confidence) / 2, items - 1) * error)


def paired_bootstrap(
    before: Sequence[float],
    after: Sequence[float],
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bootstraps the mean difference ``after - before`` over paired items; the limits are percentiles.

    Args:
        before: One value per item under the first condition.
        after: The values of the same items, in the same order, under the second.
        confidence: Coverage, between 0 and 1.
        resamples: Bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the two sequences differ in length or are empty.
    """
    if len(before) != len(after):
        raise ValueError(f"paired_bootstrap: paired items expected, got {len(before)} and {len(after)}")
    differences = [float(a) - float(b) for b, a in zip(before, after, strict=True)]
    return bootstrap_ratio(differences, [1.0] * len(differences), confidence, resamples, seed)


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """Returns Student's interval of a mean over few independent runs (Student 1908), such as the seeds of an arm.

    Args:
        values: One value per run; a single one says nothing about the spread.
        confidence: Coverage, between 0 and 1.
        bounds: Lowest and highest possible value of the mean, such as (0, 1) for a Jensen-Shannon distance; the limits
            stay within.

    Raises:
        ValueError: If there is no value.
    """
    if not len(values):
        raise ValueError("mean_interval: at least one value expected, got none")
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean, float("-inf"), float("inf"))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return Interval(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]))

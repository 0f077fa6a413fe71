"""How far other examples of the same kind would take a shift: bootstrap intervals, and the scale of halves.

Intervals are 90 %, of the shift that more and more such examples would approach. Before and after are resampled with
the same examples. Percentiles of few examples are too narrow, so they are taken farther out, at
``Phi(+- sqrt(N / (N - 1)) t)`` with Student's t of N - 1 degrees (the expanded percentile interval of Hesterberg 2014,
What Teachers Should Know about the Bootstrap).

A resampled distance is larger than the observed one by what the noise of resampling adds, as the observed one is larger
than the true one; so its percentiles hardly ever cover a small shift. In the power of the distance to which noise adds
its mean (:data:`~textkeep.importance.metrics.POWER`: a divergence is near 0 a quadratic form), the percentiles are
therefore moved back by twice the difference of the resampled mean and the observed value, once for either noise (the
bootstrap's estimate of a bias: Davison and Hinkley 1997, chapter 2). What lies below 0 becomes 0. How often the
intervals cover: ``python -m benchmarks.null``. Of an ablation they cover less where many groups cost about nothing: the
positive part of a mean has a corner at 0, where the bootstrap is not consistent (Andrews 2000, Econometrica 68:399).
"""

from __future__ import annotations

import math

import numpy as np

from .metrics import METRICS, NO_CHANGE, POWER
from .permutation import Fold, as_it_is

LEVEL = 0.90
FEWEST = 4  # examples: halves of one example say nothing
Limits = tuple[float, float]


def paired_intervals(
    before: np.ndarray,
    after: np.ndarray,
    replicates: int,
    generator: np.random.Generator,
    fold: Fold = as_it_is,
) -> tuple[dict[str, Limits], list[Limits]]:
    """Bootstraps the interval of each metric, and of the ratio after over before of each layer.

    Args:
        before: (N, L) totals of L layers for each of N examples.
        after: (N, L) of the same examples in the same order.
        replicates: Bootstrap samples.
        generator: Of the resampling.
        fold: What makes layer totals of means, where the scores by example (N, M) are no totals.
    """
    weights = bootstrap_weights(len(before), replicates, generator)
    first, second = fold(weights @ before), fold(weights @ after)
    levels = percentiles(len(before))
    means = fold(before.mean(axis=0)), fold(after.mean(axis=0))
    metrics = {n: _limits(n, float(m(*means)), m(first, second), levels) for n, m in METRICS.items()}
    low, high = np.percentile(second / np.maximum(first, np.finfo(float).tiny), levels, axis=0)
    return metrics, list(zip(low.tolist(), high.tolist(), strict=True))


def percentiles(count: int) -> tuple[float, float]:
    """Gives the percentiles of resampled means of ``count`` examples that make a 90 % interval."""
    from scipy.stats import norm, t

    if count < 2:
        return 50.0 * (1 - LEVEL), 50.0 * (1 + LEVEL)
    outer = float(norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf(0.5 + LEVEL / 2, count - 1)))
    return 100 * outer, 100 * (1 - outer)


def half_scale(
    before: np.ndarray, replicates: int, generator: np.random.Generator, fold: Fold = as_it_is
) -> dict[str, Limits]:
    """Gives the median and 95 % bound of each metric between random halves of the examples; none of fewer than 4."""
    if len(before) < FEWEST:
        return {}
    left, right = half_split_weights(len(before), replicates, generator)
    sides = fold(left @ before), fold(right @ before)
    return {name: _scale(metric(*sides), *NO_CHANGE[name]) for name, metric in METRICS.items()}


def bootstrap_weights(examples: int, replicates: int, generator: np.random.Generator) -> np.ndarray:
    """Draws the weights (R, N) of the examples in each bootstrap sample; rows sum to 1."""
    return generator.multinomial(examples, np.full(examples, 1.0 / examples), size=replicates) / examples


def half_split_weights(examples: int, replicates: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws two (R, N) weight matrices of random disjoint halves."""
    order = np.argsort(generator.random((replicates, examples)), axis=1)
    half = examples // 2
    first, second = np.zeros((replicates, examples)), np.zeros((replicates, examples))
    np.put_along_axis(first, order[:, :half], 1.0 / half, axis=1)
    np.put_along_axis(second, order[:, half : 2 * half], 1.0 / half, axis=1)
    return first, second


def _limits(name: str, value: float, resampled: np.ndarray, levels: Limits) -> Limits:
    if name not in POWER:
        low, high = np.percentile(resampled, levels)
        return float(low), float(high)
    unchanged, direction = NO_CHANGE[name]
    power = POWER[name]
    powers = np.abs(resampled - unchanged) ** power
    added = float(powers.mean()) - abs(value - unchanged) ** power
    near, far = (max(0.0, float(end) - 2 * added) ** (1 / power) for end in np.percentile(powers, levels))
    low, high = sorted((unchanged + direction * near, unchanged + direction * far))
    return low, high


def _scale(values: np.ndarray, unchanged: float, direction: float) -> Limits:
    """Gives the median and 95 % bound of how far other examples take a metric from its value without a change."""
    median, bound = np.percentile(np.abs(values - unchanged), [50.0, 95.0])
    return unchanged + direction * float(median), unchanged + direction * float(bound)

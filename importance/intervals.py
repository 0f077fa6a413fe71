"""How much a shift would vary with other examples of the same kind: bootstrap intervals, and the scale of halves.

Intervals are 90 %, for the shift that more and more such examples would approach. Before and after are resampled with
the same examples. Percentiles from few examples are too narrow, so they are taken farther out, at
``Phi(+- sqrt(N / (N - 1)) t)`` with Student's t of N - 1 degrees (the expanded percentile interval of Hesterberg 2014,
What Teachers Should Know about the Bootstrap).

A resampled distance is larger than the observed one by what the noise of resampling adds, as the observed one is larger
than the true one; so its percentiles hardly ever cover a small shift. In the power of the distance to which noise adds
its mean (:data:`~textkeep.importance.metrics.POWER`: a divergence is near 0 a quadratic form), the percentiles are
therefore moved back by twice the difference of the resampled mean and the observed value, once for either noise (the
bootstrap's estimate of a bias: Davison and Hinkley 1997, chapter 2). What lies below 0 becomes 0. How often the
intervals cover: ``python -m benchmarks.null``.

Of an ablation only the positive part of a group's mean effect counts. That function has a kink at 0, where the
bootstrap is not consistent (Andrews 2000, Econometrica 68:399), and noise adds to each group that costs nothing: layers
with many such groups gain, shares move closer together, and a shift looks smaller than it is. So groups whose mean over
both sides is within ``sqrt(log N)`` standard errors of 0 are resampled around 0 (the threshold of Andrews and Soares
2010, Econometrica 78:119, section 4.2, for constraints that may bind), all others around their means, and the bias that
the resampled figures show is also subtracted from the move of the centre. It is an approximation: ``python -m
benchmarks.null --ablation`` shows how often these intervals cover.
"""

from __future__ import annotations

import math

import numpy as np

from .metrics import METRICS, NO_CHANGE, POWER
from .permutation import Fold, as_it_is

LEVEL = 0.90
FREED = (*POWER, "centre_move")  # of an ablation: noise takes away from these, and adds to both totals of their ratio
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
        fold: Turns means into layer totals, if the per-example scores (N, M) are not totals.
    """
    weights = bootstrap_weights(len(before), replicates, generator)
    first, second = fold(weights @ before), fold(weights @ after)
    levels = percentiles(len(before))
    means = fold(before.mean(axis=0)), fold(after.mean(axis=0))
    metrics = {n: _limits(n, float(m(*means)), m(first, second), levels) for n, m in METRICS.items()}
    if fold is not as_it_is:
        centres = _without_small(before, after)
        around = [
            fold(centre + weights @ x - x.mean(axis=0)) for centre, x in zip(centres, (before, after), strict=True)
        ]
        middle = [fold(centre) for centre in centres]
        for n in FREED:
            found = METRICS[n](*means), METRICS[n](*around), METRICS[n](*middle)
            metrics[n] = _limits(n, float(found[0]), found[1], levels, float(found[2]))
    low, high = np.percentile(second / np.maximum(first, np.finfo(float).tiny), levels, axis=0)
    return metrics, list(zip(low.tolist(), high.tolist(), strict=True))


def _without_small(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means (M,) of both sides, 0 in both where their average cannot be told from 0."""
    both = (before + after) / 2
    error = both.std(axis=0, ddof=1) / math.sqrt(len(both)) if len(both) > 1 else np.zeros(both.shape[1])
    told = np.abs(both.mean(axis=0)) > math.sqrt(math.log(len(both))) * error
    return np.where(told, before.mean(axis=0), 0.0), np.where(told, after.mean(axis=0), 0.0)


def percentiles(count: int) -> tuple[float, float]:
    """Returns the percentiles of resampled means of ``count`` examples that make a 90 % interval."""
    from scipy.stats import norm, t

    if count < 2:
        return 50.0 * (1 - LEVEL), 50.0 * (1 + LEVEL)
    outer = float(norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf(0.5 + LEVEL / 2, count - 1)))
    return 100 * outer, 100 * (1 - outer)


def half_scale(
    before: np.ndarray, replicates: int, generator: np.random.Generator, fold: Fold = as_it_is
) -> dict[str, Limits]:
    """Returns the median and 95 % bound of each metric between random halves of the examples; empty below 4."""
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


def _limits(name: str, value: float, resampled: np.ndarray, levels: Limits, middle: float | None = None) -> Limits:
    """Returns the limits of a metric.

    Args:
        name: Of the metric.
        value: On all examples.
        resampled: On the bootstrap samples.
        levels: Percentiles of these that are the limits.
        middle: What the samples were drawn around, if not around the value; then a signed metric is freed of its bias.
    """
    unchanged, direction = NO_CHANGE[name]
    power = POWER.get(name)
    if power is None:
        low, high = np.percentile(resampled, levels)
        move = 0.0 if middle is None else value + middle - 2 * float(resampled.mean())
        return float(low) + move, float(high) + move
    observed = abs(value - unchanged) ** power
    centre = observed if middle is None else abs(middle - unchanged) ** power
    powers = np.abs(resampled - unchanged) ** power
    move = observed + centre - 2 * float(powers.mean())
    near, far = (max(0.0, float(end) + move) ** (1 / power) for end in np.percentile(powers, levels))
    low, high = sorted((unchanged + direction * near, unchanged + direction * far))
    return low, high


def _scale(values: np.ndarray, unchanged: float, direction: float) -> Limits:
    """Returns the median and 95 % bound of a metric's distance from its no-change value on other examples."""
    median, bound = np.percentile(np.abs(values - unchanged), [50.0, 95.0])
    return unchanged + direction * float(median), unchanged + direction * float(bound)

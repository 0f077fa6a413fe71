"""Whether two figures of several runs are correlated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # scipy loads its parts on use, so commands that only display wait for none
from numpy.typing import ArrayLike, NDArray

from .statistics import Interval

Array = NDArray[np.float64]

_FEWEST = 4  # with three points the sample correlations of a bootstrap are mostly exactly 1 or -1
_FEWEST_CLUSTERS = 5
_NOTHING = Interval(float("nan"), -1.0, 1.0)


def correlation(
    first: ArrayLike,
    second: ArrayLike,
    ranks: bool = True,
    groups: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Returns Spearman's or Pearson's correlation with a percentile bootstrap interval over the pairs.

    Args:
        first: One value per run.
        second: Values of the same runs.
        ranks: Spearman's correlation of the ranks (1904); false gives Pearson's.
        groups: The group of each run. The result is then the partial correlation given the group, that is, of the
            deviations (of values or ranks) from the group's mean; the bootstrap draws within the groups.
        clusters: The cluster of each run: runs of an arm differ by their seed or one setting and are not independent
            points. Then the bootstrap draws whole clusters (Davison and Hinkley 1997, section 3.8); with fewer than
            five the limits are -1 and 1. Not together with groups.
        confidence: Coverage, between 0 and 1.
        resamples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        The correlation; NaN in [-1, 1] if it is undefined (a constant side) or there are fewer than four runs.

    Raises:
        ValueError: If the lengths differ, or groups and clusters are given.
    """
    if groups is not None and clusters is not None:
        raise ValueError("correlation: groups or clusters, not both")
    x, y = (np.asarray(values, dtype=np.float64) for values in (first, second))
    names = ["all"] * len(x) if groups is None else list(groups)
    if not len(x) == len(y) == len(names) == len(names if clusters is None else clusters):
        raise ValueError(f"correlation: pairs expected, got {len(x)} and {len(y)} values")
    places = [index for index, name in enumerate(names) if groups is None or names.count(name) > 1]
    if len(places) < _FEWEST:
        return _NOTHING
    x, y = x[places], y[places]
    if any(np.ptp(side) <= 1e-12 * np.abs(side).max() for side in (x, y)):  # ranks of rounding errors are meaningless
        return _NOTHING
    member = np.array([[names[i] == names[j] for j in places] for i in places], dtype=np.float64)
    centre = np.eye(len(places)) - member / member.sum(axis=1, keepdims=True)
    estimate = float(_correlations(x[None], y[None], ranks, centre)[0])
    if not np.isfinite(estimate):
        return _NOTHING
    rng = np.random.default_rng(seed)
    if clusters is not None:
        samples = _of_clusters(x, y, ranks, clusters, resamples, rng)
    else:
        drawn = _draws(member, resamples, rng)
        samples = _correlations(x[drawn], y[drawn], ranks, centre)
    if not np.isfinite(samples).any():
        return Interval(estimate, -1.0, 1.0)
    low, high = np.nanquantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _of_clusters(
    x: Array, y: Array, ranks: bool, clusters: Sequence[str], resamples: int, rng: np.random.Generator
) -> Array:
    """Returns (R,) correlations of samples of whole clusters, as weights of the runs; NaN with too few clusters."""
    names = list(dict.fromkeys(clusters))
    if len(names) < _FEWEST_CLUSTERS:
        return np.full(1, np.nan)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = times[:, [names.index(name) for name in clusters]].astype(np.float64)
    sides = []
    for side in (x, y):
        below = (side[None] < side[:, None]) + 0.5 * (side[None] == side[:, None])
        values = weights @ below.T if ranks else np.broadcast_to(side, weights.shape)
        sides.append(values - (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True))
    a, b = sides
    size = np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(size > 0, (weights * a * b).sum(axis=1) / size, np.nan)
    return found


def _draws(member: Array, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws (R, N): for each place a run of its own group, with replacement."""
    found = np.empty((resamples, len(member)), dtype=np.int64)
    for row in np.unique(member, axis=0):
        inside = np.flatnonzero(row)
        found[:, inside] = rng.choice(inside, size=(resamples, len(inside)))
    return found


def _correlations(x: Array, y: Array, ranks: bool, centre: Array) -> Array:
    """Returns (R,) correlations of (R, N) deviations from the means of the groups; NaN where one side has none."""
    sides = [scipy.stats.rankdata(side, axis=-1) if ranks else side for side in (x, y)]
    a, b = (side @ centre.T for side in sides)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    scale = np.prod([np.abs(side).max(axis=-1) for side in sides], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a side whose only spread is rounding has no correlation
        found: Array = np.where(size > 1e-12 * scale, (a * b).sum(axis=-1) / size, np.nan)
    return found

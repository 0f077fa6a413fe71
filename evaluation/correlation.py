"""Whether two figures of several runs go together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from .statistics import Interval

Array = NDArray[np.float64]

_FEWEST = 4  # with three points the sample correlations of a bootstrap are mostly exactly 1 or -1
_NOTHING = Interval(float("nan"), -1.0, 1.0)


def correlation(
    first: ArrayLike,
    second: ArrayLike,
    ranks: bool = True,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Spearman's or Pearson's correlation with a percentile bootstrap interval over the pairs.

    Args:
        first: One value a run.
        second: Of the same runs.
        ranks: Spearman's correlation of the ranks (1904); false gives Pearson's.
        groups: The group of each run. Then it is the partial correlation given the group: of the deviations (of values
            or ranks) from the group's mean, what is left when differences between the groups do not count; the
            bootstrap draws within the groups.
        confidence: Coverage, between 0 and 1.
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        The correlation; NaN in [-1, 1] where it is not defined (a constant side) or the runs are fewer than four.

    Raises:
        ValueError: If the lengths differ.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (first, second))
    names = ["all"] * len(x) if groups is None else list(groups)
    if not len(x) == len(y) == len(names):
        raise ValueError(f"correlation: pairs expected, got {len(x)} and {len(y)} values")
    places = [index for index, name in enumerate(names) if groups is None or names.count(name) > 1]
    if len(places) < _FEWEST:
        return _NOTHING
    x, y = x[places], y[places]
    if any(np.ptp(side) <= 1e-12 * np.abs(side).max() for side in (x, y)):  # ranks of rounding errors mean nothing
        return _NOTHING
    member = np.array([[names[i] == names[j] for j in places] for i in places], dtype=np.float64)
    centre = np.eye(len(places)) - member / member.sum(axis=1, keepdims=True)
    estimate = float(_correlations(x[None], y[None], ranks, centre)[0])
    if not np.isfinite(estimate):
        return _NOTHING
    drawn = _draws(member, resamples, np.random.default_rng(seed))
    samples = _correlations(x[drawn], y[drawn], ranks, centre)
    low, high = np.nanquantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _draws(member: Array, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(R, N): for each place a run of its own group, with replacement."""
    found = np.empty((resamples, len(member)), dtype=np.int64)
    for row in np.unique(member, axis=0):
        inside = np.flatnonzero(row)
        found[:, inside] = rng.choice(inside, size=(resamples, len(inside)))
    return found


def _correlations(x: Array, y: Array, ranks: bool, centre: Array) -> Array:
    """(R,) correlations of (R, N) deviations from the means of the groups; NaN where one side has none."""
    sides = [rankdata(side, axis=-1) if ranks else side for side in (x, y)]
    a, b = (side @ centre.T for side in sides)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    scale = np.prod([np.abs(side).max(axis=-1) for side in sides], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a side without any spread but rounding has no correlation
        found: Array = np.where(size > 1e-12 * scale, (a * b).sum(axis=-1) / size, np.nan)
    return found

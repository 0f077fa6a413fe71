"""Did importance move on these examples? Before and after are exchanged within examples, at random or exhaustively."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .metrics import METRICS, NO_CHANGE, POWER, Profile

DRAWS = 4999
_BATCH_ELEMENTS = 2_000_000  # exchanges held in memory at once
Fold = Callable[[np.ndarray], Profile]
"""Turns means over examples (..., M) into layer totals (..., L)."""
_ROUNDING = 1e-9  # relative to the observed figure: exchanging all examples reproduces it up to rounding


@dataclass(frozen=True)
class Permutation:
    """Result of :func:`paired_permutation`.

    Attributes:
        p: Metric -> p-value of the hypothesis that before and after are exchangeable within each example.
        floor: The smallest p-value that this many examples or draws can give: a p at the floor means "at most".
        exact: Whether all exchanges were tried.
        expected: Metric -> its mean over the exchanges: what noise alone gives with this many examples; for a signed
            metric, its mean size.
        corrected: Metric (of :data:`~textkeep.importance.metrics.POWER`) -> its value less the part that noise adds.
    """

    p: dict[str, float]
    floor: float
    exact: bool
    expected: dict[str, float]
    corrected: dict[str, float]


def as_it_is(means: np.ndarray) -> Profile:
    """Returns means over examples that are already layer totals."""
    return means


def paired_permutation(
    before: np.ndarray, after: np.ndarray, draws: int = DRAWS, seed: int = 0, fold: Fold = as_it_is
) -> Permutation:
    """Tests a shift between two measurements of the same examples (Fisher 1935; Good 2005, chapter 3).

    If training moved nothing that the examples have in common, either of an example's two profiles could be the earlier
    one. Every metric is compared with its values after such exchanges, as a distance from its value without a shift.
    Exchanging all examples at most changes the sign of a move, so half of all ``2^N`` exchanges suffice; they are
    enumerated if there are no more of them than draws. The test is exact, but sizes are exchanged with the profiles:
    where most of the total was lost, it rarely finds a change of the shares (bringing both sides to one total first
    would find it, and reject 7 to 8 % of true nulls at 5 %). Else ``p = (1 + as far or farther) / (1 + draws)``
    (Phipson and Smyth 2010).

    A distance is above 0 by noise alone, and the more so the fewer the examples. Let D be the divergence (JS distance
    squared), near 0 a quadratic form q of the mean change ``sum_i d_i / N``. Its expectation is q of the true change
    plus what the spread of the ``d_i`` adds, and its mean M over the exchanges, which give each ``d_i`` a random sign,
    is ``sum_i q(d_i) / N^2``. So ``(D - M) N / (N - 1)`` has q of the true change as its expectation; its root, 0 where
    it is negative, is the corrected distance. ``wasserstein`` is corrected alike, ``spearman`` with 1 - rho for D.

    Args:
        before: (N, L) totals of L layers for each of N examples.
        after: (N, L) of the same examples in the same order.
        draws: Random exchanges.
        seed: Of the draws.
        fold: What makes layer totals of means, where the scores by example (N, M) are no totals.
    """
    count = len(before)
    exact = 2 ** (count - 1) <= draws
    mean, step = before.mean(axis=0), (after - before) / count
    whole = mean + step.sum(axis=0)
    observed = {name: _distance(name, fold(mean), fold(whole)) for name in METRICS}
    reached = dict.fromkeys(METRICS, 0)
    sums, powers = dict.fromkeys(METRICS, 0.0), dict.fromkeys(POWER, 0.0)
    total = 0
    size = max(1, _BATCH_ELEMENTS // max(before.shape))
    for exchanged in _all(count, size) if exact else _drawn(count, draws, size, np.random.default_rng(seed)):
        moved = exchanged @ step
        first, second = fold(mean + moved), fold(whole - moved)
        total += len(exchanged)
        for name, bound in observed.items():
            far = _distance(name, first, second)
            reached[name] += int((far >= bound - _ROUNDING * abs(bound)).sum())
            sums[name] += float(far.sum())
            if name in POWER:
                powers[name] += float((far ** POWER[name]).sum())
    spare = 0 if exact else 1  # the exchanges include the observed order only if they are exhaustive
    return Permutation(
        p={name: (n + spare) / (total + spare) for name, n in reached.items()},
        floor=1 / (total + spare),
        exact=exact,
        expected={name: at_distance(name, value / total) for name, value in sums.items()},
        corrected={
            name: _corrected(name, float(observed[name]), value / total, count) for name, value in powers.items()
        },
    )


def at_distance(name: str, far: float) -> float:
    """Returns the value of a metric that lies this far from its no-change value."""
    unchanged, direction = NO_CHANGE[name]
    return unchanged + direction * far


def _corrected(name: str, observed: float, noise: float, count: int) -> float:
    """Subtracts the mean over the exchanges from the observed power of a distance."""
    power = POWER[name]
    signal = max(0.0, observed**power - noise) * count / max(count - 1, 1)
    return at_distance(name, signal ** (1 / power))


def _distance(name: str, before: Profile, after: Profile) -> np.ndarray:
    return np.abs(METRICS[name](before, after) - NO_CHANGE[name][0])


def _all(count: int, size: int) -> Iterator[np.ndarray]:
    """Lists every way to exchange examples, (R, N) of 0 and 1, the last one left as it is."""
    for start in range(0, 2 ** (count - 1), size):
        numbers = np.arange(start, min(start + size, 2 ** (count - 1)))
        yield (numbers[:, None] >> np.arange(count) & 1).astype(float)


def _drawn(count: int, draws: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Draws (R, N) of 0 and 1, each with an even chance."""
    for start in range(0, draws, size):
        yield generator.integers(2, size=(min(size, draws - start), count)).astype(float)

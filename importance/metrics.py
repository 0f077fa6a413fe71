"""Distances between two layer profiles, vectorised over any leading axes (replicates)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Profile = np.ndarray  # (..., L) non-negative totals of L layers, in order of depth


def shares(totals: Profile) -> Profile:
    """Divides totals by their sum over layers."""
    return totals / np.maximum(totals.sum(axis=-1, keepdims=True), np.finfo(float).tiny)


def depth(layers: int) -> np.ndarray:
    """Returns the relative depth of each layer, from 0 to 1."""
    return np.linspace(0.0, 1.0, layers) if layers > 1 else np.zeros(1)


def js_distance(before: Profile, after: Profile) -> np.ndarray:
    """Returns the Jensen-Shannon distance of layer shares (root of the divergence, base 2), in [0, 1].

    Lin 1991; that the root is a metric: Endres and Schindelin 2003. It is 1 where one of the two has no shares at all
    (every effect of an ablation may be negative), and 0 where neither has.
    """
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):
        distance = jensenshannon(shares(before), shares(after), base=2.0, axis=-1)
    alone = before.any(axis=-1) != after.any(axis=-1)
    return np.clip(np.where(alone, 1.0, np.nan_to_num(distance)), 0.0, 1.0)  # rounding


def wasserstein(before: Profile, after: Profile) -> np.ndarray:
    """Returns the 1-Wasserstein distance of layer shares over relative depth: how far the shares travelled, in [0, 1].

    In one dimension, this is the area between the cumulative distributions (Vallender 1974).
    """
    layers = before.shape[-1]
    gap = np.abs(np.cumsum(shares(before) - shares(after), axis=-1))[..., :-1]
    return gap.sum(axis=-1) / max(layers - 1, 1)


def centre_move(before: Profile, after: Profile) -> np.ndarray:
    """Returns the move of the centre of mass over relative depth; positive is towards the output."""
    return (shares(after) - shares(before)) @ depth(before.shape[-1])


def peak_move(before: Profile, after: Profile) -> np.ndarray:
    """Returns the move of the layer with the largest total, in layers; positive is towards the output."""
    return np.argmax(after, axis=-1).astype(float) - np.argmax(before, axis=-1)


def log_total_ratio(before: Profile, after: Profile) -> np.ndarray:
    """Returns the natural logarithm of total after over total before; negative is suppression."""
    tiny = np.finfo(float).tiny
    return np.log(np.maximum(after.sum(axis=-1), tiny)) - np.log(np.maximum(before.sum(axis=-1), tiny))


def spearman(before: Profile, after: Profile) -> np.ndarray:
    """Returns the rank correlation of the layer totals (Spearman 1904); 1 where all totals are equal in both."""
    from scipy.stats import rankdata

    first, second = rankdata(before, axis=-1), rankdata(after, axis=-1)
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    size = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.where(size > 0, (first * second).sum(axis=-1) / np.where(size > 0, size, 1.0), 1.0)


NO_CHANGE: dict[str, tuple[float, float]] = dict.fromkeys(
    ("js", "wasserstein", "centre_move", "peak_move", "log_total_ratio"), (0.0, 1.0)
) | {"spearman": (1.0, -1.0)}
"""Value of a metric between equal profiles, and where a larger shift takes it (of a signed metric: its size)."""

POWER: dict[str, int] = {"js": 2, "wasserstein": 2, "spearman": 1}
"""Metrics that noise can only take away from their value without a change, and the power of that distance to which,
for small changes, the noise of few examples adds its own mean."""

METRICS: dict[str, Callable[[Profile, Profile], np.ndarray]] = {
    "js": js_distance,
    "wasserstein": wasserstein,
    "centre_move": centre_move,
    "peak_move": peak_move,
    "log_total_ratio": log_total_ratio,
    "spearman": spearman,
}

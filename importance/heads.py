"""Do the same attention heads matter for two things? The overlap of their top heads, against chance and noise.

Heads in some layers matter most whatever the task: two sets that only have their layers in common overlap for that
reason alone. So the overlap is compared with the whole distribution of random sets with as many heads in each layer
(Inherited Heads, arXiv 2609.14174, finds 66 to 74 of the top 100 heads shared between an audio LLM and its text LLM,
against about 20 by chance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .intervals import FEWEST, bootstrap_weights, half_split_weights, percentiles
from .metrics import spearman
from .snapshot import Snapshot

ABLATION = "ablation"
_ROUNDING = 1e-9  # of a probability: sums of products


@dataclass(frozen=True)
class HeadEffects:
    """The effect of removing each attention head on the loss of each example.

    Attributes:
        names: Of the H heads, by depth.
        layers: (H,) the decoder block of each.
        effects: (N, H) loss without the head minus loss, nats: above 0 the head helps.
    """

    names: list[str]
    layers: np.ndarray
    effects: np.ndarray

    @classmethod
    def of(cls, snapshot: Snapshot) -> HeadEffects:
        """Takes them from a snapshot.

        Raises:
            ValueError: If it ablated no heads.
        """
        units = snapshot.groups.get(ABLATION, [])
        if not units or any(unit.kind != "head" for unit in units):
            raise ValueError("importance: the snapshot holds no heads; allowed: estimator ablation with ablate=head")
        layers = np.array([unit.layer for unit in units])
        return cls([unit.name for unit in units], layers, snapshot.per_example(ABLATION))

    @property
    def means(self) -> np.ndarray:
        """(H,) mean over the examples."""
        return self.effects.mean(axis=0)

    def limits(self, replicates: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns the limits (H,) of each mean's 90 % bootstrap interval over examples."""
        weights = bootstrap_weights(len(self.effects), replicates, np.random.default_rng(seed))
        low, high = np.percentile(weights @ self.effects, percentiles(len(self.effects)), axis=0)
        return low, high


@dataclass(frozen=True)
class Chance:
    """How many heads are shared by random sets that have as many heads in each layer.

    Attributes:
        distribution: (k + 1,) the probability of each overlap.
        mean: Of the overlap.
        low: 5th percentile.
        high: 95th percentile.
        p: Probability of sharing at least as many as were found.
        p_floor: The smallest p possible with these layers: every head that could be shared is.
        anywhere: Mean overlap of sets that need not have their layers in common: k^2 / H.
    """

    distribution: list[float]
    mean: float
    low: int
    high: int
    p: float
    p_floor: float
    anywhere: float


@dataclass(frozen=True)
class Halves:
    """Shared heads when each set comes from a random half of the examples: how much overlap noise leaves.

    Attributes:
        first: Mean overlap of two halves of the first measurement.
        second: That of the second one.
        across: Mean overlap of a half of the first with a half of the second, on different examples if both used the
            same ones.
        across_low: 5th percentile over the splits.
        across_high: 95th percentile.
    """

    first: float
    second: float
    across: float
    across_low: float
    across_high: float


@dataclass(frozen=True)
class HeadOverlap:
    """Whether the same heads matter in two measurements.

    Attributes:
        top: Size k of the sets: the heads whose removal raises the loss most.
        shared: Names of the heads in both.
        only_first: Names of the others of the first set, the most important first.
        only_second: Those of the second set.
        chance: Against random sets.
        halves: Against noise; ``None`` with fewer than 4 examples.
        correlation: Spearman's, of the effects of all heads.
    """

    top: int
    shared: list[str]
    only_first: list[str]
    only_second: list[str]
    chance: Chance
    halves: Halves | None
    correlation: float

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def default_top(heads: int) -> int:
    """Returns a tenth of the heads, but at least one."""
    return max(1, round(heads / 10))


def overlap_of_heads(
    first: HeadEffects, second: HeadEffects, top: int, splits: int = 500, seed: int = 0
) -> HeadOverlap:
    """Compares the heads that matter most in two measurements.

    Args:
        first: One measurement.
        second: The other one, of the same heads, on other examples, another modality or another model.
        top: Heads in each set.
        splits: Random halves.
        seed: Of these.

    Raises:
        ValueError: If the heads are not the same, or fewer than ``top``.
    """
    if first.names != second.names:
        raise ValueError("importance: the two measurements are of other heads: models of other architectures or sizes")
    if not 0 < top <= len(first.names):
        raise ValueError(f"importance: {top} top heads of {len(first.names)}; allowed: 1 to {len(first.names)}")
    orders = [np.argsort(-side.means, kind="stable")[:top] for side in (first, second)]
    chosen = [set(order.tolist()) for order in orders]
    names = [[first.names[index] for index in order] for order in orders]
    shared = chosen[0] & chosen[1]
    common = {first.names[index] for index in shared}
    return HeadOverlap(
        top=top,
        shared=[name for name in names[0] if name in common],
        only_first=[name for name in names[0] if name not in common],
        only_second=[name for name in names[1] if name not in common],
        chance=_chance(orders, first.layers, len(shared)),
        halves=_halves(first, second, top, splits, np.random.default_rng(seed)),
        correlation=float(spearman(first.means, second.means)),
    )


def matched_overlaps(first: np.ndarray, second: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Returns the probability of each overlap of a set of heads with a random one that matches another in its layers.

    Inside a layer the overlap is hypergeometric: of n heads, a in one set and b in the other. Layers are drawn
    independently of each other, so the distribution of the sum is the convolution of theirs.

    Args:
        first: Indices (k,) of one set.
        second: Indices (k,) of the other one.
        layers: (H,) the layer of each head.

    Returns:
        (k + 1,) probabilities.
    """
    from scipy.stats import hypergeom

    found = np.ones(1)
    for layer in np.unique(layers):
        size, *counts = (int((layers[part] == layer).sum()) for part in (slice(None), first, second))
        found = np.convolve(found, hypergeom.pmf(np.arange(min(counts) + 1), size, *counts))
    return np.pad(found, (0, len(first) + 1 - len(found)))


def _chance(orders: Sequence[np.ndarray], layers: np.ndarray, shared: int) -> Chance:
    distribution = matched_overlaps(orders[0], orders[1], layers)
    most = int(sum(min((layers[order] == layer).sum() for order in orders) for layer in np.unique(layers)))
    below = np.cumsum(distribution)
    low, high = (int(np.searchsorted(below, level - _ROUNDING)) for level in (0.05, 0.95))
    return Chance(
        distribution=distribution.tolist(),
        mean=float(np.arange(len(distribution)) @ distribution),
        low=low,
        high=high,
        p=min(1.0, float(distribution[shared:].sum())),
        p_floor=float(distribution[most]),
        anywhere=len(orders[0]) ** 2 / len(layers),
    )


def _halves(
    first: HeadEffects, second: HeadEffects, top: int, splits: int, generator: np.random.Generator
) -> Halves | None:
    """Compares halves of the same size: within each measurement, and across with other examples."""
    if min(len(first.effects), len(second.effects)) < FEWEST:
        return None
    ones = half_split_weights(len(first.effects), splits, generator)
    same = len(first.effects) == len(second.effects)
    others = ones if same else half_split_weights(len(second.effects), splits, generator)
    mine = [_tops(weights @ first.effects, top) for weights in ones]
    theirs = [_tops(weights @ second.effects, top) for weights in others]
    across = (_shared(mine[0], theirs[1]) + _shared(mine[1], theirs[0])) / 2
    low, high = np.percentile(across, [5.0, 95.0])
    within = [float(_shared(*pair).mean()) for pair in (mine, theirs)]
    return Halves(within[0], within[1], float(across.mean()), float(low), float(high))


def _tops(means: np.ndarray, top: int) -> np.ndarray:
    """Marks the largest ``top`` of each row (R, H)."""
    marks = np.zeros(means.shape, dtype=bool)
    np.put_along_axis(marks, np.argsort(-means, axis=1, kind="stable")[:, :top], True, axis=1)
    return marks


def _shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Counts what two rows of marks (R, H) have in common (R,)."""
    return (first & second).sum(axis=1).astype(float)

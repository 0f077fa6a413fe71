"""Is the gradient right? Its scores of the layers compared with the real effect of removing each layer's groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .comparable import paired
from .intervals import bootstrap_weights, percentiles
from .metrics import shares, spearman
from .snapshot import Snapshot

Curve = Callable[[np.ndarray], np.ndarray]
"""Maps the examples' weights (..., N) to a value of each layer (..., L)."""


@dataclass(frozen=True)
class Ranked:
    """A rank correlation over the layers.

    Attributes:
        value: On all examples.
        low: Lower end of the bootstrap 90 % interval over examples, both scores resampled alike.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How well an estimator and an ablation of the same examples agree on the order of the layers.

    Attributes:
        estimator: Name.
        ablation: Name of the ablation.
        now: Rank correlation of the layers' totals with the real effects of removal, signs included.
        moved: That of the changes of the layers' shares since the reference; ``None`` without one.
    """

    estimator: str
    ablation: str
    now: Ranked
    moved: Ranked | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def ablation_of(snapshot: Snapshot) -> str | None:
    """Returns the name of the ablation that a snapshot holds, if there is one."""
    return next(iter(snapshot.groups), None)


def agreement(
    snapshot: Snapshot, estimator: str, reference: Snapshot | None = None, replicates: int = 1000, seed: int = 0
) -> Agreement | None:
    """Compares an estimator with the ablation of the same snapshot; ``None`` if there is none or it is the ablation.

    Args:
        snapshot: With both.
        estimator: Name of one with scores by example.
        reference: Comparable with it, for the changes; left out if it lacks one of the two.
        replicates: Bootstrap samples behind the intervals; 0 for none.
        seed: Of the resampling.
    """
    ablation = ablation_of(snapshot)
    if ablation is None or estimator == ablation or estimator not in snapshot.examples:
        return None
    count = len(snapshot.losses)
    drawn = bootstrap_weights(count, replicates, np.random.default_rng(seed)) if replicates else np.zeros((0, count))
    pair = _layers(snapshot, snapshot, estimator), _layers(snapshot, snapshot, ablation)
    if reference is None or not {estimator, ablation} <= {*reference.examples}:
        return Agreement(estimator, ablation, _ranked(*pair, drawn))
    moves = _moves(reference, snapshot, estimator), _moves(reference, snapshot, ablation)
    return Agreement(estimator, ablation, _ranked(*pair, drawn), _ranked(*moves, drawn))


def _layers(order: Snapshot, snapshot: Snapshot, estimator: str, positive: bool = False) -> Curve:
    """Computes layer totals, signed unless only the positive part counts; examples in the order of ``order``."""
    _, member = order.membership(estimator)
    examples = paired(order, snapshot, estimator)

    def totals(weights: np.ndarray) -> np.ndarray:
        means = weights @ examples
        return (snapshot.counted(estimator, means) if positive else means) @ member

    return totals


def _moves(before: Snapshot, after: Snapshot, estimator: str) -> Curve:
    first, second = (_layers(before, snapshot, estimator, positive=True) for snapshot in (before, after))
    return lambda weights: shares(second(weights)) - shares(first(weights))


def _ranked(first: Curve, second: Curve, drawn: np.ndarray) -> Ranked:
    everything = np.full(drawn.shape[1], 1.0 / drawn.shape[1])
    value = float(spearman(first(everything), second(everything)))
    if not len(drawn):
        return Ranked(value)
    low, high = np.percentile(spearman(first(drawn), second(drawn)), percentiles(drawn.shape[1]))
    return Ranked(value, float(low), float(high))


def costless(snapshot: Snapshot, ablation: str) -> tuple[int, int, float]:
    """Counts the groups without which the mean loss does not rise.

    Returns:
        How many, of how many, and their part of the sum of all absolute effects.
    """
    counted = [i for i, group in enumerate(snapshot.groups[ablation]) if group.equal_to is None]
    effects = snapshot.effects(ablation)[counted]
    falls = effects <= 0
    size = float(np.abs(effects).sum())
    return int(falls.sum()), len(effects), float(np.abs(effects[falls]).sum()) / size if size else 0.0

"""How importance moved between two snapshots: each figure with an interval, a test and a scale."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..foundation.plain_tables import plain_table
from .comparable import check_comparable, paired, untestable
from .intervals import half_scale, paired_intervals
from .masks import overlap
from .metrics import METRICS
from .permutation import DRAWS, Fold, Permutation, as_it_is, paired_permutation
from .snapshot import Snapshot


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty.

    Attributes:
        value: On all examples.
        low: Lower end of the paired-bootstrap 90 % interval over examples (:mod:`~textkeep.importance.intervals`);
            ``None`` without per-example scores. For a distance it is bias-corrected and surrounds ``corrected``.
        high: Upper end.
        null: Median of the same figure between random halves of the reference's examples. It gives a scale: how far
            another probe of half the size would differ without any training. For a signed figure, its size; for a rank
            correlation, the correlation.
        null_p95: What 95 % of the halves stay within: the 95th percentile, or the 5th for a rank correlation.
        p: Whether these examples moved: the p-value of the paired permutation test (:func:`paired_permutation`).
            Halves are different examples and not a null for this; ``None`` without per-example scores.
        expected: What noise alone gives with this many examples: the mean over the exchanges of that test; for a signed
            figure, its size.
        corrected: The value less the part that noise adds; ``None`` for signed figures, to which it adds nothing.
    """

    value: float
    low: float | None = None
    high: float | None = None
    null: float | None = None
    null_p95: float | None = None
    p: float | None = None
    expected: float | None = None
    corrected: float | None = None


@dataclass(frozen=True, repr=False)
class Shift:
    """Shift of one estimator's layer profile against a reference.

    Attributes:
        estimator: Name.
        metrics: ``js``, ``wasserstein``, ``centre_move``, ``peak_move``, ``log_total_ratio``, ``spearman``.
        layers: Label -> ratio of the layer's total, after over before.
        peak_before: Label of the layer with the largest total.
        peak_after: The same after.
        total_before: Total over the decoder.
        total_after: The same after.
        loss_before: Loss on the probe.
        loss_after: The same after; importance on fitted items falls by itself.
        top_overlap: Share of the top-k weights that are top-k in both, if both snapshots have masks.
        top_chance: What two random choices would share.
        examples: Number of examples.
        p_floor: The smallest p-value that the test can give; a ``p`` at it means "at most". ``None`` without a test.
        untested: Why there is no paired test; empty where there is one.
    """

    estimator: str
    metrics: dict[str, Estimate]
    layers: dict[str, Estimate]
    peak_before: str
    peak_after: str
    total_before: float
    total_after: float
    loss_before: float
    loss_after: float
    examples: int
    top_overlap: float | None = None
    top_chance: float | None = None
    p_floor: float | None = None
    untested: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Returns a short table: each figure with its 90 % interval, what noise alone gives, and its paired p."""
        rows = [
            [
                name,
                f"{found.value:.4g}",
                "-" if found.low is None or found.high is None else f"[{found.low:.3g}, {found.high:.3g}]",
                "-" if found.expected is None else f"{found.expected:.3g}",
                "-" if found.p is None else f"{'<= ' * (found.p <= (self.p_floor or 0.0))}{found.p:.2g}",
            ]
            for name, found in self.metrics.items()
        ]
        title = (
            f"{self.estimator}: {self.examples} examples, loss {self.loss_before:.4g} -> {self.loss_after:.4g} nats a "
            f"token, peak {self.peak_before} -> {self.peak_after}"
        )
        return plain_table(title, ["shift", "value", "90 % interval", "noise alone", "paired p"], rows)

    __repr__ = __str__


def compare(
    before: Snapshot, after: Snapshot, estimator: str, replicates: int = 1000, seed: int = 0, draws: int = DRAWS
) -> Shift:
    """Compares two snapshots: the shift of ``after`` against ``before``.

    Args:
        before: Reference.
        after: Measured on the same probe with the same settings.
        estimator: Name.
        replicates: Bootstrap samples and half splits; 0 gives values only, without a test.
        seed: Of the resampling.
        draws: Exchanges of the paired test.

    Raises:
        ValueError: If the snapshots cannot be compared.
    """
    check_comparable(before, after, estimator)
    labels, member = before.membership(estimator)
    first, second = before.scores(estimator) @ member, after.scores(estimator) @ member
    values = {name: float(metric(first, second)) for name, metric in METRICS.items()}
    ratios = second / np.maximum(first, np.finfo(float).tiny)
    metrics = {name: Estimate(value) for name, value in values.items()}
    layers = {label: Estimate(float(ratio)) for label, ratio in zip(labels, ratios, strict=True)}
    floor, untested = None, untestable(before, after, estimator)
    if replicates and not untested:
        fold, one, other = _examples(before, after, estimator, member)
        metrics, layers = _with_uncertainty(metrics, layers, one, other, replicates, np.random.default_rng(seed), fold)
        test = paired_permutation(one, other, draws, seed, fold)
        metrics, floor = {name: _tested(name, found, test) for name, found in metrics.items()}, test.floor
    shared, chance = _top_overlap(before, after, estimator)
    return Shift(
        estimator=estimator,
        metrics=metrics,
        layers=layers,
        peak_before=labels[int(np.argmax(first))],
        peak_after=labels[int(np.argmax(second))],
        total_before=before.total(estimator),
        total_after=after.total(estimator),
        loss_before=before.loss,
        loss_after=after.loss,
        examples=len(before.losses),
        top_overlap=shared,
        top_chance=chance,
        p_floor=floor,
        untested=untested,
    )


def paired_test(before: Snapshot, after: Snapshot, estimator: str) -> Permutation:
    """Runs the paired permutation test of :func:`compare` alone.

    Raises:
        ValueError: If the snapshots cannot be compared, or there are no per-example scores.
    """
    check_comparable(before, after, estimator)
    if untested := untestable(before, after, estimator):
        raise ValueError(f"importance: {untested}")
    _, member = before.membership(estimator)
    fold, first, second = _examples(before, after, estimator, member)
    return paired_permutation(first, second, fold=fold)


def _examples(
    before: Snapshot, after: Snapshot, estimator: str, member: np.ndarray
) -> tuple[Fold, np.ndarray, np.ndarray]:
    """Returns both snapshots' per-example scores, and a function from means over examples to layer totals.

    Sums over a layer are taken first if nothing else is needed; for an ablation, only the means show what counts.
    """
    first, second = before.per_example(estimator), paired(before, after, estimator)
    if estimator in before.groups:
        return lambda means: before.counted(estimator, means) @ member, first, second
    return as_it_is, first @ member, second @ member


def _tested(name: str, found: Estimate, test: Permutation) -> Estimate:
    return replace(found, p=test.p[name], expected=test.expected[name], corrected=test.corrected.get(name))


def _with_uncertainty(
    metrics: dict[str, Estimate],
    layers: dict[str, Estimate],
    before: np.ndarray,
    after: np.ndarray,
    replicates: int,
    generator: np.random.Generator,
    fold: Fold,
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Adds intervals and the scale of halves. Both snapshots are resampled with the same weights: paired."""
    intervals, ratios = paired_intervals(before, after, replicates, generator, fold)
    scale = half_scale(before, replicates, generator, fold)
    found = {n: Estimate(e.value, *intervals[n], *scale.get(n, (None, None))) for n, e in metrics.items()}
    parts = {label: Estimate(e.value, *ratios[i]) for i, (label, e) in enumerate(layers.items())}
    return found, parts


def _top_overlap(before: Snapshot, after: Snapshot, estimator: str) -> tuple[float | None, float | None]:
    same = all(
        before.meta["options"].get(key) == after.meta["options"].get(key) for key in ("top_fraction", "top_scope")
    )
    if estimator not in before.masks or estimator not in after.masks or not same:
        return None, None
    both = [overlap(a, b) for a, b in zip(before.masks[estimator], after.masks[estimator], strict=True)]
    shared = sum(intersection for intersection, _ in both)
    chosen = sum(int(np.bitwise_count(bits).sum()) for bits in before.masks[estimator])
    return shared / max(chosen, 1), float(before.meta["options"]["top_fraction"])

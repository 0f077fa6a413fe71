"""Do the scores predict what happens? Groups of weights are actually shrunk and the loss is measured.

Groups are whole layers, matrices or attention heads, drawn from all deciles of the score so that the bottom is tested
too; a few more are drawn at random. The change of the loss is measured on examples other than those that were scored.
Of two matrices whose shrinking does the same to the model (up and down, v and o, q and k where nothing lies between),
only one is tested: the other would narrow the intervals without adding information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from ..foundation.plain_tables import plain_table
from .edits import shrunk
from .estimators import DEFAULT_ESTIMATORS, ESTIMATORS, checked
from .groups import GRANULARITIES, Place, distinct, scored_groups, stratified
from .measurement import probe
from .metrics import spearman
from .progress import Progress, counted, silent
from .resume import ResumedLosses
from .sites import sites_named
from .state import unwrap

BASELINE = "magnitude"  # every score is compared with it and with random ones
SCORES = (*DEFAULT_ESTIMATORS, BASELINE)
RANDOM = "random"
DRAWS = 1000  # of the random score, and of the bootstrap
SPLITS = 100  # random halves


@dataclass(frozen=True)
class Faithfulness:
    """How well one score predicts the change of the loss.

    For the score ``random`` the figures are means over many random orders, and ``low`` and ``high`` are their 5th and
    95th percentile: what an uninformative score reaches by luck.

    Attributes:
        score: Estimator, or ``random``.
        shrink: By how much groups were shrunk; 1 removes them.
        spearman: Rank correlation of score and absolute change of the loss over the groups.
        low: Lower end of its 90 % bootstrap interval over groups.
        high: Upper end.
        precision: Share of the top quarter by score that is in the top quarter by effect.
        worst_missed: Largest effect in the bottom half by score, nats: the false-negative bound.
        worst: Largest effect of all, nats.
    """

    score: str
    shrink: float
    spearman: float
    low: float
    high: float
    precision: float
    worst_missed: float
    worst: float


@dataclass(frozen=True, repr=False)
class Verification:
    """Result of :func:`verify`.

    Attributes:
        results: One for each (score, shrink), the random score last.
        effects: Shrink -> change of the mean loss of each group, nats.
        scores: Score -> value of each group.
        groups: Names of the groups.
        granularity: ``layer``, ``matrix`` or ``head``.
        reliability: Score -> rank correlation of matrix scores between random halves of the probe (median of 100);
            ``None`` with fewer than 4 examples.
        effect_reliability: Shrink -> the same of the absolute effects between random halves of the evaluation
            examples. Where it is low, even a perfect score could not correlate highly.
        loss: Loss on the evaluation examples, untouched.
        examples: Number of examples scored.
        evaluated: Number of evaluation examples.
    """

    results: list[Faithfulness]
    effects: dict[float, list[float]]
    scores: dict[str, list[float]]
    groups: list[str]
    granularity: str
    reliability: dict[str, float | None]
    effect_reliability: dict[float, float | None]
    loss: float
    examples: int
    evaluated: int

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Returns a short table: how well each score predicts the effect of shrinking."""
        rows = (
            [r.score, f"{r.shrink:g}", f"{r.spearman:.2f} [{r.low:.2f}, {r.high:.2f}]", f"{r.precision:.0%}"]
            for r in self.results
        )
        title = f"{len(self.groups)} groups ({self.granularity}), {self.examples} examples, {self.evaluated} others"
        return plain_table(title, ["score", "shrunk by", "Spearman, 90 %", "precision, top 1/4"], rows)

    __repr__ = __str__


def verify(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    evaluation: Sequence[Mapping[str, Any]],
    *,
    estimators: Sequence[str] | str = SCORES,
    granularity: str = "matrix",
    groups: int = 64,
    shrinks: Sequence[float] = (0.1, 1.0),
    seed: int = 0,
    progress: Progress = silent,
    **options: Any,
) -> Verification:
    """Tests the scores of a probe against actual changes of the loss.

    Args:
        model: As for ``probe``; its weights are restored bit for bit.
        batches: What importance is measured on.
        evaluation: Other examples, on which the loss is measured.
        estimators: The scores to test, in addition to magnitude; groups are drawn from all deciles of the first. For an
            ablation, the score is the change of the loss on ``batches`` when the drawn groups are removed.
        granularity: ``layer``, ``matrix`` or ``head``.
        groups: The maximum number of groups, 8 of them drawn regardless of the score.
        shrinks: Amounts in (0, 1], 1 removes a group.
        seed: Of the choice of groups and of the resampling.
        progress: Told what is being done.
        **options: Of ``probe``.

    Raises:
        ValueError: For an unknown granularity or estimator, an amount out of range, or a model without known heads.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f"importance: granularity={granularity!r} is unknown; allowed: {', '.join(GRANULARITIES)}")
    if not shrinks or not all(0 < amount <= 1 for amount in shrinks):
        raise ValueError(f"importance: shrink={list(shrinks)} must lie in (0, 1]")
    tested = tuple(dict.fromkeys((*checked(estimators), BASELINE)))
    model = unwrap(model)
    scored = [name for name in tested if not ESTIMATORS[name].ablated]
    snapshot = probe(model, counted(batches, "scoring", progress), scored, **options)
    every = scored_groups(snapshot, granularity, scored)
    if not every:
        raise ValueError("importance: no attention heads were recognised; use granularity=matrix")
    generator = np.random.default_rng(seed)
    every = distinct(every, snapshot, generator)
    picked = [every[i] for i in stratified([scores[scored[0]] for _, scores in every], groups, generator)]
    places = [place for place, _ in picked]
    scores = {name: np.array([values[name] for _, values in picked]) for name in scored}
    reliability = {n: _half_reliability(snapshot.per_example(n), generator) for n in snapshot.examples}
    names = [matrix.name for matrix in snapshot.table]
    if len(scored) < len(tested):
        (changed,) = _measure(model, names, places, batches, (1.0,), progress, options)[1].values()
        for name in set(tested) - set(scored):
            scores[name] = np.abs(changed.mean(axis=1))
            reliability[name] = _half_reliability(changed.T, generator, absolute=True)
    base, changes = _measure(model, names, places, evaluation, tuple(dict.fromkeys(shrinks)), progress, options)
    effects = {shrink: changed.mean(axis=1) for shrink, changed in changes.items()}
    results: list[Faithfulness] = []
    for shrink, effect in effects.items():
        results += [_judge(name, shrink, scores[name], np.abs(effect), generator) for name in tested]
        results.append(_chance(shrink, np.abs(effect), generator))
    return Verification(
        results=results,
        effects={shrink: effect.tolist() for shrink, effect in effects.items()},
        scores={name: scores[name].tolist() for name in tested},
        groups=[place.name for place in places],
        granularity=granularity,
        reliability=reliability,
        effect_reliability={s: _half_reliability(c.T, generator, absolute=True) for s, c in changes.items()},
        loss=float(base.mean()),
        examples=len(snapshot.losses),
        evaluated=len(base),
    )


def _measure(
    model: nn.Module,
    names: Sequence[str],
    places: Sequence[Place],
    evaluation: Sequence[Mapping[str, Any]],
    shrinks: Sequence[float],
    progress: Progress,
    options: Mapping[str, Any],
) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Measures the losses (N,) of the untouched model and the changes (G, N) as each group is shrunk."""
    sites = sites_named(model, names, options.get("include", ()))
    losses = ResumedLosses(model, evaluation, options.get("autocast"))
    changes = {}
    for shrink in shrinks:
        rows = []
        for place in counted(places, f"shrinking by {shrink:g}", progress):
            with ExitStack() as stack:
                for site in (sites[index] for index in (place.index, *place.also)):
                    stack.enter_context(shrunk(site, place.mask(site), shrink))
                rows.append(losses.after_change(sites[place.index].layer) - losses.losses)
        changes[shrink] = np.stack(rows)
    return losses.losses, changes


def _judge(
    name: str, shrink: float, scores: np.ndarray, effects: np.ndarray, generator: np.random.Generator
) -> Faithfulness:
    count = len(scores)
    drawn = generator.integers(count, size=(DRAWS, count))
    low, high = np.percentile(spearman(scores[drawn], effects[drawn]), [5.0, 95.0])
    precision, missed = _hits(scores, effects)
    found = float(spearman(scores, effects))
    return Faithfulness(name, shrink, found, float(low), float(high), precision, missed, float(effects.max()))


def _chance(shrink: float, effects: np.ndarray, generator: np.random.Generator) -> Faithfulness:
    """Averages the same figures over uninformative scores."""
    drawn = generator.random((DRAWS, len(effects)))
    found = spearman(drawn, np.broadcast_to(effects, drawn.shape))
    low, high = np.percentile(found, [5.0, 95.0])
    hits = np.array([_hits(scores, effects) for scores in drawn]).mean(axis=0)
    return Faithfulness(
        RANDOM,
        shrink,
        float(found.mean()),
        float(low),
        float(high),
        float(hits[0]),
        float(hits[1]),
        float(effects.max()),
    )


def _hits(scores: np.ndarray, effects: np.ndarray) -> tuple[float, float]:
    """Returns the share of the top quarter that is right, and the largest effect in the bottom half by score."""
    count = len(scores)
    top = max(1, count // 4)
    by_score, by_effect = np.argsort(-scores, kind="stable"), np.argsort(-effects, kind="stable")
    precision = len({*by_score[:top].tolist()} & {*by_effect[:top].tolist()}) / top
    return precision, float(effects[by_score[count // 2 :]].max())


def _half_reliability(values: np.ndarray, generator: np.random.Generator, absolute: bool = False) -> float | None:
    """Returns the median rank correlation of the means of ``values`` (N, M) over random halves of the N examples."""
    if len(values) < 4:
        return None
    found = []
    for _ in range(SPLITS):
        order = generator.permutation(len(values))
        half = len(values) // 2
        means = [values[part].mean(axis=0) for part in (order[:half], order[half:])]
        found.append(float(spearman(*(np.abs(m) if absolute else m for m in means))))
    return float(np.median(found))

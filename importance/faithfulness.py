"""Do the scores say what happens? Groups of weights are really shrunk, and the loss really measured.

Groups are matrices or attention heads, drawn from all deciles of the score so that the bottom is tested too; a few more
are drawn at random. The change of the loss is measured on other examples than those that were scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .edits import shrunk
from .evaluate import answer_losses
from .metrics import spearman
from .probe import probe
from .sites import Site, find_sites
from .snapshot import Snapshot
from .state import unwrap

GRANULARITIES = ("matrix", "head")
SCORES = ("taylor", "fisher", "signed_taylor", "magnitude")


@dataclass(frozen=True)
class Faithfulness:
    """How well one score foretells the change of the loss.

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


@dataclass(frozen=True)
class Verification:
    """Result of :func:`verify`.

    Attributes:
        results: One for each (score, shrink).
        effects: Shrink -> change of the mean loss of each group.
        scores: Score -> value of each group.
        groups: Names of the groups.
        granularity: ``matrix`` or ``head``.
        reliability: Score -> rank correlation of matrix scores between random halves of the probe (median of 100).
        loss: Loss on the evaluation examples, untouched.
    """

    results: list[Faithfulness]
    effects: dict[float, list[float]]
    scores: dict[str, list[float]]
    groups: list[str]
    granularity: str
    reliability: dict[str, float]
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def verify(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    evaluation: Sequence[Mapping[str, Any]],
    *,
    granularity: str = "matrix",
    groups: int = 64,
    shrinks: Sequence[float] = (0.1, 1.0),
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Verification:
    """Tests the scores of a probe against actual changes of the loss.

    Args:
        model: As for ``probe``; its weights end bit for bit as they were.
        batches: What importance is measured on.
        evaluation: Other examples, on which the loss is measured.
        granularity: ``matrix`` or ``head``.
        groups: At most so many groups, 8 of them drawn without regard to the score.
        shrinks: Amounts, 1 removes a group.
        seed: Of the choice of groups and of the random score.
        progress: Told what is being done.
        **options: Of ``probe``.

    Raises:
        ValueError: For an unknown granularity or a model without known heads.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f"importance: granularity={granularity!r} is unknown; allowed: {', '.join(GRANULARITIES)}")
    model = unwrap(model)
    progress("scoring")
    snapshot = probe(model, batches, SCORES, **options)
    every = _groups(snapshot, granularity)
    if not every:
        raise ValueError("importance: no attention heads were recognised; use granularity=matrix")
    generator = np.random.default_rng(seed)
    chosen = _stratified([scores["taylor"] for _, scores in every], groups, generator)
    picked = [every[i] for i in chosen]
    scores = {name: [values[name] for _, values in picked] for name in SCORES}
    scores["random"] = generator.random(len(picked)).tolist()
    sites = find_sites(model).sites
    autocast = options.get("autocast")
    base = answer_losses(model, evaluation, autocast)[0]
    effects: dict[float, list[float]] = {}
    for shrink in shrinks:
        effects[shrink] = []
        for number, (place, _) in enumerate(picked):
            progress(f"shrink {shrink:g}: group {number + 1} of {len(picked)}")
            with shrunk(sites[place.index], place.mask(sites[place.index]), shrink):
                changed = answer_losses(model, evaluation, autocast)[0]
            effects[shrink].append(float((changed - base).mean()))
    results = [
        _judge(name, shrink, np.array(values), np.abs(effects[shrink]), generator)
        for shrink in shrinks
        for name, values in scores.items()
    ]
    names = [place.name for place, _ in picked]
    reliability = {n: _half_reliability(snapshot, n, generator) for n in snapshot.examples}
    return Verification(results, effects, scores, names, granularity, reliability, float(base.mean()))


@dataclass(frozen=True)
class _Place:
    """Where a group lies: a matrix, or the rows or columns of one head."""

    name: str
    index: int
    start: int = 0
    stop: int = -1
    columns: bool = False

    def mask(self, site: Site) -> Tensor:
        chosen = torch.zeros(site.shape, dtype=torch.bool)
        stop = self.stop if self.stop >= 0 else site.shape[0]
        if self.columns:
            chosen[:, self.start : stop] = True
        else:
            chosen[self.start : stop] = True
        return chosen


def _groups(snapshot: Snapshot, granularity: str) -> list[tuple[_Place, dict[str, float]]]:
    """All groups with their scores; heads are those of the output projections (columns) and queries (rows)."""
    if granularity == "matrix":
        scores = {name: snapshot.scores(name) for name in SCORES}
        return [
            (_Place(m.name, i), {name: float(scores[name][i]) for name in SCORES}) for i, m in enumerate(snapshot.table)
        ]
    heads = {name: snapshot.head_scores(name) for name in SCORES}
    found = []
    for i, matrix in enumerate(snapshot.table):
        if matrix.head_dim and matrix.kind in ("q", "o"):
            for h in range(len(heads["taylor"][matrix.name])):
                start = h * matrix.head_dim
                place = _Place(f"{matrix.name}[head {h}]", i, start, start + matrix.head_dim, matrix.kind == "o")
                found.append((place, {name: float(heads[name][matrix.name][h]) for name in SCORES}))
    return found


def _stratified(scores: Sequence[float], count: int, generator: np.random.Generator) -> list[int]:
    """Indices from all deciles of the score, and 8 at random."""
    if len(scores) <= count:
        return list(range(len(scores)))
    free = min(8, count // 4)
    order = np.argsort(scores)
    chosen: list[int] = []
    parts = np.array_split(order, 10)
    for number, part in enumerate(parts):
        size = (count - free) // 10 + (number < (count - free) % 10)
        chosen += generator.choice(part, size=min(size, len(part)), replace=False).tolist()
    rest = np.setdiff1d(np.arange(len(scores)), chosen)
    return sorted({*chosen, *generator.choice(rest, size=min(free, len(rest)), replace=False).tolist()})


def _judge(
    name: str, shrink: float, scores: np.ndarray, effects: np.ndarray, generator: np.random.Generator
) -> Faithfulness:
    count = len(scores)
    drawn = generator.integers(count, size=(1000, count))
    low, high = np.percentile(spearman(scores[drawn], effects[drawn]), [5.0, 95.0])
    top = max(1, count // 4)
    by_score, by_effect = np.argsort(-scores, kind="stable"), np.argsort(-effects, kind="stable")
    return Faithfulness(
        score=name,
        shrink=shrink,
        spearman=float(spearman(scores, effects)),
        low=float(low),
        high=float(high),
        precision=len({*by_score[:top].tolist()} & {*by_effect[:top].tolist()}) / top,
        worst_missed=float(effects[by_score[count // 2 :]].max()),
        worst=float(effects.max()),
    )


def _half_reliability(snapshot: Snapshot, estimator: str, generator: np.random.Generator) -> float:
    scores = snapshot.per_example(estimator)
    if len(scores) < 4:
        return float("nan")
    found = []
    for _ in range(100):
        order = generator.permutation(len(scores))
        half = len(scores) // 2
        found.append(float(spearman(scores[order[:half]].mean(0), scores[order[half:]].mean(0))))
    return float(np.median(found))

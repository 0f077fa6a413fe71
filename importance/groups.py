"""Groups of weights that are shrunk to test the scores: layers, matrices, or attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .site_table import Site
from .snapshot import Snapshot

GRANULARITIES = ("layer", "matrix", "head")
UNBIASED = 8  # groups drawn regardless of the score


@dataclass(frozen=True)
class Place:
    """Where a group lies: the matrices of a layer, a matrix, or the rows or columns of one head.

    Attributes:
        name: Of the parameter; with the number of the head.
        index: Of the matrix in the snapshot's table.
        start: First row or column.
        stop: One past the last; ``None`` means all.
        columns: Whether the group is columns.
        also: Further matrices of the group, whole.
    """

    name: str
    index: int
    start: int = 0
    stop: int | None = None
    columns: bool = False
    also: tuple[int, ...] = ()

    def mask(self, site: Site) -> Tensor:
        """Makes a boolean mask (O, I) that is true inside the group."""
        chosen = torch.zeros(site.shape, dtype=torch.bool)
        inside = slice(self.start, self.stop)
        chosen[(slice(None), inside) if self.columns else inside] = True
        return chosen


def scored_groups(
    snapshot: Snapshot, granularity: str, estimators: Sequence[str]
) -> list[tuple[Place, dict[str, float]]]:
    """Lists all groups with their scores; heads are those of output projections (columns) and queries (rows).

    Args:
        snapshot: With row and column sums, if heads are asked for.
        granularity: ``layer``, ``matrix`` or ``head``.
        estimators: Whose scores.
    """
    if granularity == "layer":
        return _scored_layers(snapshot, estimators)
    if granularity == "matrix":
        scores = {name: snapshot.scores(name) for name in estimators}
        return [
            (Place(m.name, i), {name: float(scores[name][i]) for name in estimators})
            for i, m in enumerate(snapshot.table)
        ]
    heads = {name: snapshot.head_scores(name) for name in estimators}
    found = []
    for i, matrix in enumerate(snapshot.table):
        if matrix.head_dim and matrix.kind in ("q", "o"):
            size = matrix.head_dim
            for h in range(len(heads[estimators[0]][matrix.name])):
                place = Place(f"{matrix.name}[head {h}]", i, h * size, (h + 1) * size, matrix.kind == "o")
                found.append((place, {name: float(heads[name][matrix.name][h]) for name in estimators}))
    return found


def _scored_layers(snapshot: Snapshot, estimators: Sequence[str]) -> list[tuple[Place, dict[str, float]]]:
    members = {name: snapshot.membership(name) for name in estimators}
    totals = {name: snapshot.scores(name) @ member for name, (_, member) in members.items()}
    found = []
    for layer, label in enumerate(members[estimators[0]][0]):
        inside = [i for i, matrix in enumerate(snapshot.table) if matrix.layer == layer]
        if inside:
            place = Place(label, inside[0], also=tuple(inside[1:]))
            found.append((place, {name: float(totals[name][layer]) for name in estimators}))
    return found


def distinct(
    groups: list[tuple[Place, dict[str, float]]], snapshot: Snapshot, generator: np.random.Generator
) -> list[tuple[Place, dict[str, float]]]:
    """Drops one, at random, of each pair of matrices that conservation makes equal."""
    index = {matrix.name: i for i, matrix in enumerate(snapshot.table)}
    dropped = {
        (i, index[matrix.equal_to])[int(generator.integers(2))]
        for i, matrix in enumerate(snapshot.table)
        if matrix.equal_to is not None
    }
    return [(p, scores) for p, scores in groups if p.also or p.stop is not None or p.index not in dropped]


def stratified(scores: Sequence[float], count: int, generator: np.random.Generator) -> list[int]:
    """Draws at most ``count`` groups: equally many from each decile of the score, and a few at random."""
    if len(scores) <= count:
        return list(range(len(scores)))
    free = min(UNBIASED, count // 4)
    chosen: list[int] = []
    for number, part in enumerate(np.array_split(np.argsort(scores), 10)):
        size = (count - free) // 10 + (number < (count - free) % 10)
        chosen += generator.choice(part, size=min(size, len(part)), replace=False).tolist()
    rest = np.setdiff1d(np.arange(len(scores)), chosen)
    return sorted({*chosen, *generator.choice(rest, size=min(count - len(chosen), len(rest)), replace=False).tolist()})

"""Shape of importance inside a matrix: does it gather on few rows and columns, and do changes too?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .metrics import spearman
from .snapshot import Snapshot

TOP = 0.05


def gini(values: np.ndarray) -> float:
    """Gini coefficient of non-negative values: 0 all equal, towards 1 all in one."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count, total = len(ordered), ordered.sum()
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def entropy(values: np.ndarray) -> float:
    """Shannon entropy of the shares over its maximum: 1 all equal, 0 all in one."""
    values = np.asarray(values, dtype=np.float64)
    shares = values[values > 0] / max(values.sum(), np.finfo(float).tiny)
    return float(-(shares * np.log(shares)).sum() / np.log(len(values))) if len(values) > 1 else 1.0


def stable_rank(matrix: Tensor) -> float:
    """``|M|_F^2 / |M|_2^2``: a lower bound of the rank that noise does not move."""
    values = torch.linalg.svdvals(matrix.float())
    return float((values.square().sum() / values[0].square().clamp_min(1e-30)).item())


def line_share(mask: Tensor, fraction: float = TOP) -> float:
    """Share of the chosen entries that lie in the ``fraction`` of rows or columns which hold most of them.

    Args:
        mask: Boolean (O, I).
        fraction: Of the rows, and of the columns.
    """
    rows = _top_lines(mask.sum(1), fraction)
    columns = _top_lines(mask.sum(0), fraction)
    inside = mask & (rows[:, None] | columns[None, :])
    return float(inside.sum() / mask.sum().clamp_min(1))


def _top_lines(counts: Tensor, fraction: float) -> Tensor:
    chosen = torch.zeros(len(counts), dtype=torch.bool)
    chosen[counts.topk(max(1, round(fraction * len(counts)))).indices] = True
    return chosen


def permuted(mask: Tensor, seed: int = 0) -> Tensor:
    """The same number of chosen entries, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)


@dataclass(frozen=True)
class Structure:
    """Structure of one matrix's importance.

    Attributes:
        name: Parameter name.
        gini_rows: Gini coefficient of the row sums.
        gini_columns: Of the column sums.
        entropy_rows: Normalised entropy of the row sums.
        entropy_columns: Of the column sums.
        line_share: Share of the top weights in the top 5 % of rows and columns; ``None`` without a mask.
        line_share_chance: The same for as many weights anywhere.
        stable_rank: Of the map of scores; ``None`` without a map.
    """

    name: str
    gini_rows: float
    gini_columns: float
    entropy_rows: float
    entropy_columns: float
    line_share: float | None = None
    line_share_chance: float | None = None
    stable_rank: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def structure(snapshot: Snapshot, estimator: str = "taylor") -> list[Structure]:
    """Structure of each matrix; masks and maps are used where the snapshot has them.

    Args:
        snapshot: With row and column sums.
        estimator: Name.

    Raises:
        ValueError: If the snapshot was made without vectors.
    """
    if estimator not in snapshot.rows:
        raise ValueError(f"importance: no row and column sums of {estimator!r}; probe with vectors=True")
    masks = snapshot.top(estimator) if estimator in snapshot.masks else {}
    maps = snapshot.parameters(estimator) if estimator in snapshot.maps else {}
    found = []
    for i, matrix in enumerate(snapshot.table):
        rows, columns = snapshot.rows[estimator][i], snapshot.columns[estimator][i]
        mask = masks.get(matrix.name)
        found.append(
            Structure(
                matrix.name,
                gini(rows),
                gini(columns),
                entropy(rows),
                entropy(columns),
                line_share(mask) if mask is not None else None,
                line_share(permuted(mask)) if mask is not None else None,
                stable_rank(maps[matrix.name]) if matrix.name in maps else None,
            )
        )
    return found


@dataclass(frozen=True)
class ChangeOverlap:
    """Whether a matrix changed where it was important.

    Attributes:
        name: Parameter name.
        rows: Spearman of the row sums of ``|delta W|`` and of importance.
        columns: Of the column sums.
        baseline: 95th percentile of the absolute value of either under shuffled lines.
        random_rows: The same as ``rows`` for a random change of the same rank and norm; ``None`` if no rank was given.
        random_columns: The same for columns.
    """

    name: str
    rows: float
    columns: float
    baseline: float
    random_rows: float | None = None
    random_columns: float | None = None


def change_overlap(
    snapshot: Snapshot, deltas: Mapping[str, Tensor], estimator: str = "taylor", rank: int | None = None, seed: int = 0
) -> list[ChangeOverlap]:
    """Overlap of importance with the change of the weights, against shuffled lines.

    Any low-rank change draws stripes; with ``rank`` it is also set against a random adapter of that rank and norm.

    Args:
        snapshot: Of the model before the change.
        deltas: Parameter name -> change (O, I).
        estimator: Name.
        rank: Of the adapter that made the change.
        seed: Of shuffles and random adapters.
    """
    generator = np.random.default_rng(seed)
    found = []
    for i, matrix in enumerate(snapshot.table):
        if matrix.name not in deltas:
            continue
        sides = snapshot.rows[estimator][i], snapshot.columns[estimator][i]
        delta = deltas[matrix.name].float().abs()
        changes = delta.sum(1).numpy(), delta.sum(0).numpy()
        actual = [float(spearman(a, b)) for a, b in zip(sides, changes, strict=True)]
        shuffled = [
            abs(float(spearman(a, generator.permutation(b))))
            for a, b in zip(sides, changes, strict=True)
            for _ in range(50)
        ]
        random: list[float | None] = [None, None]
        if rank is not None:
            drawn = _random_change(delta.shape, rank, generator)
            random = [
                float(spearman(a, b)) for a, b in zip(sides, (drawn.sum(1).numpy(), drawn.sum(0).numpy()), strict=True)
            ]
        limit = float(np.percentile(shuffled, 95))
        found.append(ChangeOverlap(matrix.name, actual[0], actual[1], limit, random[0], random[1]))
    return found


def _random_change(shape: torch.Size, rank: int, generator: np.random.Generator) -> Tensor:
    """Absolute entries of a random product of rank ``rank``; the norm does not matter to ranks of sums."""
    b = torch.from_numpy(generator.standard_normal((shape[0], rank)))
    a = torch.from_numpy(generator.standard_normal((rank, shape[1])))
    return (b @ a).abs()

"""The shape of importance inside a matrix: does it concentrate on few rows and columns?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .snapshot import Snapshot

TOP = 0.05


def gini(values: np.ndarray) -> float:
    """Returns the Gini coefficient of non-negative values: 0 all equal, towards 1 all in one."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count, total = len(ordered), ordered.sum()
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def entropy(values: np.ndarray) -> float:
    """Returns the Shannon entropy of the shares over its maximum: 1 all equal, 0 all in one."""
    values = np.asarray(values, dtype=np.float64)
    shares = values[values > 0] / max(values.sum(), np.finfo(float).tiny)
    return float(-(shares * np.log(shares)).sum() / np.log(len(values))) if len(values) > 1 else 1.0


def stable_rank(matrix: Tensor) -> float:
    """Returns ``|M|_F^2 / |M|_2^2``: a lower bound of the rank that is robust to noise; 0 for a zero matrix."""
    matrix = matrix.float()
    largest = matrix.abs().max()
    if not largest:
        return 0.0
    values = torch.linalg.svdvals(matrix / largest)  # squares of scores of 1e-20 would vanish in float32
    return float((values.square().sum() / values[0].square()).item())


def line_share(mask: Tensor, fraction: float = TOP) -> float:
    """Returns the share of the chosen entries in the ``fraction`` of rows and columns that hold most of them.

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
    """Places the same number of chosen entries at random."""
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
        """Returns plain values for JSON."""
        return asdict(self)


def structure(snapshot: Snapshot, estimator: str = "taylor") -> list[Structure]:
    """Measures the structure of each matrix; masks and maps are used where the snapshot has them.

    Args:
        snapshot: With row and column sums.
        estimator: Name.

    Raises:
        ValueError: If the snapshot was made without vectors.
    """
    all_rows, all_columns = snapshot.lines(estimator)
    masks = snapshot.top(estimator) if estimator in snapshot.masks else {}
    maps = snapshot.parameters(estimator) if estimator in snapshot.maps else {}
    found = []
    for i, matrix in enumerate(snapshot.table):
        rows, columns = all_rows[i], all_columns[i]
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

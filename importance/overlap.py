"""Did the weights change where they were important? Against shuffled lines, and under LoRA against random adapters.

Both importance and change concentrate on rows and columns by themselves (outlier channels; any low-rank product is
striped), so two striped pictures prove nothing (figures 1 and 4 of arXiv 2509.23755): what counts is whether the
stripes coincide more than they would by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from .metrics import spearman
from .progress import Progress, counted, silent
from .snapshot import Snapshot
from .structure import line_share, permuted


@dataclass(frozen=True)
class LineMatch:
    """Rank correlation of the line sums of importance and of ``|delta W|``, compared with chance.

    Attributes:
        spearman: Over the lines.
        shuffled_p95: 95th percentile of its absolute value when the lines of the change are shuffled.
        percentile: Share of the shuffles, in %, that correlate less.
        random_median: Median over random adapters of the same rank; ``None`` without a rank.
        random_percentile: Share of those adapters, in %, that correlate less.
    """

    spearman: float
    shuffled_p95: float
    percentile: float
    random_median: float | None = None
    random_percentile: float | None = None


@dataclass(frozen=True)
class ChangeOverlap:
    """Whether one matrix changed where it was important.

    Attributes:
        name: Parameter name.
        layer: Decoder block.
        kind: ``q k v o gate up down`` or the path inside the block.
        norm: Frobenius norm of the change.
        rows: Of the row sums.
        columns: Of the column sums.
        line_share: Share of the most changed weights in the 5 % of rows and columns that hold most of them.
        line_share_chance: The same for as many randomly placed weights.
        shared: Share of the top important weights that are among as many most changed ones; ``None`` without a mask.
        shared_shuffled: The same with rows and columns of the change shuffled (mean of the draws): its stripes remain,
            but elsewhere.
        shared_random: The same for random adapters (mean of the draws).
    """

    name: str
    layer: int | None
    kind: str
    norm: float
    rows: LineMatch
    columns: LineMatch
    line_share: float
    line_share_chance: float
    shared: float | None = None
    shared_shuffled: float | None = None
    shared_random: float | None = None


@dataclass(frozen=True)
class OverlapTest:
    """Result of ``textkeep importance overlap``.

    Attributes:
        estimator: Whose scores were compared.
        matrices: One for each matrix that changed.
    """

    estimator: str
    matrices: list[ChangeOverlap]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def change_overlap(
    snapshot: Snapshot,
    deltas: Mapping[str, Tensor],
    estimator: str = "taylor",
    *,
    ranks: Mapping[str, int] | None = None,
    shuffles: int = 1000,
    draws: int = 20,
    seed: int = 0,
    progress: Progress = silent,
) -> list[ChangeOverlap]:
    """Measures the overlap of importance with the change of the weights, for every matrix that changed.

    Args:
        snapshot: Of the model before the change.
        deltas: Parameter name -> change (O, I).
        estimator: Name.
        ranks: Parameter name -> rank of the adapter that made the change. Those matrices are also set against random
            adapters of that rank; their norm does not matter, because all figures here depend on order alone.
        shuffles: Of the lines.
        draws: Of random adapters, and of shuffled changes for ``shared_shuffled``.
        seed: Of all of these.
        progress: Told what is being done.

    Raises:
        ValueError: If the snapshot has no row and column sums of the estimator, or nothing changed.
    """
    all_rows, all_columns = snapshot.lines(estimator)
    generator = np.random.default_rng(seed)
    masks = snapshot.top(estimator) if estimator in snapshot.masks else {}
    found = []
    for i, matrix in counted(list(enumerate(snapshot.table)), "overlap", progress):
        delta = deltas[matrix.name].float().abs() if matrix.name in deltas else torch.zeros(())
        if not delta.any():
            continue
        sides = all_rows[i], all_columns[i]
        rank = (ranks or {}).get(matrix.name)
        adapters = [_random_change(delta.shape, rank, generator) for _ in range(draws)] if rank else []
        rows, columns = (
            _match(side, delta, adapters, 1 - axis, shuffles, generator) for axis, side in enumerate(sides)
        )
        mask = masks.get(matrix.name)
        changed = top_entries(delta, 0.05)
        shared = _shared(mask, delta, adapters, draws, generator) if mask is not None else (None, None, None)
        found.append(
            ChangeOverlap(
                matrix.name,
                matrix.layer,
                matrix.kind,
                float(delta.norm()),
                rows,
                columns,
                line_share(changed),
                line_share(permuted(changed, seed)),
                *shared,
            )
        )
    if not found:
        raise ValueError("importance: base and tuned model are equal in all matrices of the snapshot")
    return found


def top_entries(values: Tensor, fraction: float) -> Tensor:
    """Makes a boolean mask of the largest ``fraction`` of the entries."""
    chosen = torch.zeros(values.numel(), dtype=torch.bool)
    chosen[values.flatten().topk(max(1, round(fraction * values.numel()))).indices] = True
    return chosen.view(values.shape)


def _match(
    side: np.ndarray, delta: Tensor, adapters: list[Tensor], axis: int, shuffles: int, generator: np.random.Generator
) -> LineMatch:
    lines = delta.sum(axis).numpy()
    value = float(spearman(side, lines))
    luck = _shuffled_correlations(side, lines, shuffles, generator)
    shuffled = float(np.percentile(np.abs(luck), 95)), 100 * float((luck < value).mean())
    if not adapters:
        return LineMatch(value, *shuffled)
    drawn = np.array([float(spearman(side, adapter.sum(axis).numpy())) for adapter in adapters])
    return LineMatch(value, *shuffled, float(np.median(drawn)), 100 * float((drawn < value).mean()))


def _shuffled_correlations(
    first: np.ndarray, second: np.ndarray, shuffles: int, generator: np.random.Generator
) -> np.ndarray:
    """Correlates with the second vector shuffled; ranks are computed once, since shuffling preserves them."""
    a, b = (ranks - ranks.mean() for ranks in (rankdata(first), rankdata(second)))
    mixed = generator.permuted(np.broadcast_to(b, (shuffles, len(b))), axis=1)
    found: np.ndarray = mixed @ a / max(float(np.sqrt((a @ a) * (b @ b))), 1e-300)
    return found


def _shared(
    mask: Tensor, delta: Tensor, adapters: list[Tensor], draws: int, generator: np.random.Generator
) -> tuple[float, float, float | None]:
    """Returns the share of the mask among the most changed weights: actual, shuffled, random adapters."""
    size = int(mask.sum())
    changed = top_entries(delta, size / mask.numel())

    def share(other: Tensor) -> float:
        return float((mask & other).sum()) / size

    mixed = []
    rows, columns = changed.nonzero(as_tuple=True)
    for _ in range(draws):
        moved = (torch.from_numpy(generator.permutation(n)) for n in delta.shape)
        mixed.append(float(mask[next(moved)[rows], next(moved)[columns]].sum()) / size)
    drawn = [share(top_entries(adapter, size / mask.numel())) for adapter in adapters]
    return share(changed), float(np.mean(mixed)), float(np.mean(drawn)) if drawn else None


def _random_change(shape: torch.Size, rank: int, generator: np.random.Generator) -> Tensor:
    """Draws the absolute entries of a product of random normal factors."""
    b = torch.from_numpy(generator.standard_normal((shape[0], rank)).astype(np.float32))
    a = torch.from_numpy(generator.standard_normal((rank, shape[1])).astype(np.float32))
    return (b @ a).abs()

"""Pictures of the inside of matrices: the region of the top weights, and whether changes coincide with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .drawing import AFTER, BEFORE, drawing

if TYPE_CHECKING:
    from ...importance import Snapshot
    from ...importance.overlap import ChangeOverlap
    from ...importance.structure import Structure

CELLS = 96  # on a heat map's longer side: single weights would be smaller than a pixel


def plot_matrix(snapshot: Snapshot, estimator: str, name: str, path: Path) -> None:
    """Draws the region of the top weights of one matrix (figure 1 of the paper).

    Raises:
        ValueError: If the snapshot has no mask of the estimator.
    """
    fraction = snapshot.meta["options"]["top_fraction"]
    mask = snapshot.top(estimator)[name]
    with drawing(path, 1, 1, _size(mask.shape, 1)) as axes:
        _region(axes[0, 0], mask, fraction, f"top {fraction:.0%} by {estimator}")
        axes[0, 0].figure.suptitle(name, fontsize=9)


def plot_structure(snapshot: Snapshot, estimator: str, found: Sequence[Structure], path: Path) -> None:
    """Draws how the top weights concentrate: share in the fullest rows and columns, inequality of line sums."""
    kinds = dict.fromkeys(matrix.kind for matrix in snapshot.table if matrix.layer is not None)
    place = {matrix.name: matrix for matrix in snapshot.table}
    panels: list[tuple[str, Any]] = [("Gini of row sums", "gini_rows"), ("Gini of column sums", "gini_columns")]
    if found[0].line_share is not None:
        panels.insert(0, ("share of the top weights in the\nfullest 5 % of rows and columns", "line_share"))
    with drawing(path, 1, len(panels), (3.8 * len(panels), 3.6)) as axes:
        for axis, (title, key) in zip(axes[0], panels, strict=True):
            for number, kind in enumerate(kinds):
                rows = [item for item in found if place[item.name].kind == kind]
                layers = [place[item.name].layer for item in rows]
                axis.plot(layers, [getattr(i, key) for i in rows], ".-", markersize=4, color=f"C{number}", label=kind)
            if key == "line_share":
                chance = [item.line_share_chance or 0.0 for item in found]
                axis.axhline(float(np.mean(chance)), color="#333333", linestyle=":", label="permuted")
            axis.set(xlabel="layer")
            axis.set_ylim(0, 1)
            axis.set_title(title, loc="left", fontsize=9)
        axes[0, 0].legend(frameon=False, fontsize=7, ncols=2)
        axes[0, 0].figure.suptitle(f"{snapshot.heading}: {estimator}", fontsize=9)


def plot_overlap(
    snapshot: Snapshot, estimator: str, matrices: Sequence[ChangeOverlap], name: str, delta: Tensor, path: Path
) -> None:
    """Draws the top region of a matrix beside its most changed weights (figures 1 and 4), and all matrices' overlap."""
    from ...importance.overlap import top_entries

    fraction = snapshot.meta["options"].get("top_fraction") or 0.05
    mask = snapshot.top(estimator)[name] if estimator in snapshot.masks else None
    count = 3 if mask is not None else 2
    width, height = _size(delta.shape, count)
    with drawing(path, 1, count, (width + 1.5, max(height, 3.6))) as axes:
        if mask is not None:
            _region(axes[0, 0], mask, fraction, f"top {fraction:.0%} by {estimator}")
        _region(axes[0, -2], top_entries(delta.abs(), fraction), fraction, f"{fraction:.0%} that changed most")
        last = axes[0, -1]
        for colour, side, label in ((BEFORE, "rows", "rows"), (AFTER, "columns", "columns")):
            layers = [m.layer if m.layer is not None else -1 for m in matrices]
            last.scatter(layers, [getattr(m, side).spearman for m in matrices], s=9, color=colour, label=label)
        limit = float(np.median([max(m.rows.shuffled_p95, m.columns.shuffled_p95) for m in matrices]))
        last.axhspan(-limit, limit, color="#dddddd", zorder=0, label="shuffled, 95 %")
        last.set(xlabel="layer", ylim=(-1, 1))
        last.set_title("rank correlation of line sums", loc="left", fontsize=9)
        last.legend(frameon=False, fontsize=7)
        last.figure.suptitle(name, fontsize=9)


def _region(axis: Any, mask: Tensor, fraction: float, title: str) -> None:
    """Draws how full each cell of a matrix is; white is empty, the expected fill is pale."""
    image = axis.imshow(100 * pooled(mask), aspect="auto", cmap="magma_r", vmin=0, vmax=min(100, 1000 * fraction),
                        extent=(0, mask.shape[1], mask.shape[0], 0), interpolation="nearest")  # fmt: skip
    axis.set(xlabel="column (input)", ylabel="row (output)")
    axis.set_title(title, loc="left", fontsize=9)
    axis.figure.colorbar(image, ax=axis, label="% of the cell", shrink=0.8)


def pooled(mask: Tensor, cells: int = CELLS) -> np.ndarray:
    """Returns the share of chosen entries in each cell of a grid of at most ``cells`` along the longer side."""
    scale = min(1.0, cells / max(mask.shape))
    size = max(1, round(mask.shape[0] * scale)), max(1, round(mask.shape[1] * scale))
    return torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), size)[0].numpy()


def _size(shape: Sequence[int], panels: int) -> tuple[float, float]:
    """Returns a size in inches: panels with about the matrix's proportions that fit a page."""
    return 3.8 * panels, min(6.0, max(2.6, 3.4 * shape[0] / shape[1]))

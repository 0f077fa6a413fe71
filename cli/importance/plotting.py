"""Pictures of snapshots, shifts and attributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...importance import Snapshot


@contextmanager
def _figure(path: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.0)) -> Iterator[Any]:
    """Axes to draw on; the file is written under a temporary name and renamed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix or '.png'}")
    figure.savefig(temporary, dpi=150)
    pyplot.close(figure)
    temporary.replace(path)


def plot_snapshot(snapshot: Snapshot, estimator: str, path: Path) -> None:
    """Share of each layer, and of each kind within each layer."""
    shares = snapshot.shares(estimator)
    kinds = list(snapshot.shares(estimator, "kind"))
    grid = np.zeros((len(kinds), snapshot.layers))
    for matrix, score in zip(snapshot.table, snapshot.scores(estimator), strict=True):
        if matrix.layer is not None and matrix.kind in kinds:
            grid[kinds.index(matrix.kind), matrix.layer] += score
    with _figure(path, 2, 1, (7.0, 5.5)) as axes:
        upper, lower = axes[0, 0], axes[1, 0]
        upper.bar(range(snapshot.layers), [100 * share for share in shares.values()], color="#3b6ea5")
        upper.set(ylabel="share of importance, %", xlim=(-0.5, snapshot.layers - 0.5))
        upper.set_title(
            f"{snapshot.meta['name']}, step {snapshot.step}: {estimator}, loss {snapshot.loss:.3f}", loc="left"
        )
        image = lower.imshow(100 * grid / max(grid.sum(), 1e-300), aspect="auto", cmap="viridis")
        lower.set(xlabel="layer", yticks=range(len(kinds)), yticklabels=kinds)
        lower.figure.colorbar(image, ax=lower, label="%")


def plot_comparison(before: Snapshot, after: Snapshot, estimators: Sequence[str], path: Path) -> None:
    """Layer shares before and after, one panel an estimator."""
    with _figure(path, 1, len(estimators), (4.5 * len(estimators), 3.6)) as axes:
        for axis, estimator in zip(axes[0], estimators, strict=True):
            for snapshot, colour in ((before, "#777777"), (after, "#c4453a")):
                shares = [100 * share for share in snapshot.shares(estimator).values()]
                axis.plot(shares, marker="o", markersize=3, color=colour, label=f"step {snapshot.step}")
            ratio = after.total(estimator) / max(before.total(estimator), 1e-300)
            axis.set(xlabel="layer", ylabel="share of importance, %")
            axis.set_title(f"{estimator} (total x{ratio:.2g})", loc="left")
            axis.legend(frameon=False)


def plot_attribution(found: Any, path: Path) -> None:
    """Nats of each layer in the change of the loss."""
    with _figure(path) as axes:
        axis = axes[0, 0]
        values = list(found.layers.values())
        axis.bar(range(len(values)), values, color=["#c4453a" if v > 0 else "#3b6ea5" for v in values])
        labels = [name.removeprefix("layer_") for name in found.layers]
        axis.set(xticks=range(len(values)), ylabel="change of the loss, nats", xlabel="layer")
        axis.set_xticklabels(labels, rotation=90, fontsize=7)
        axis.axhline(0, color="#333333", linewidth=0.8)
        axis.set_title(f"loss {found.loss_before:.3f} -> {found.loss_after:.3f}", loc="left")

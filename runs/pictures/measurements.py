"""Pictures of what was measured: snapshots, shifts, attributions and tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluation import shown_p
from ...foundation.run_names import LAYER_PREFIX
from .drawing import AFTER, BEFORE, GREY, drawing

if TYPE_CHECKING:
    from ...importance import Snapshot
    from ...importance.attribution import Attribution
    from ...importance.faithfulness import Verification
    from ...importance.removal import RemovalTest
    from ...importance.reverts import Revert
    from ...importance.shift import Shift

LETTERS = 12
"""Of a picture's title, an inch."""


def plot_snapshot(snapshot: Snapshot, estimator: str, path: Path) -> None:
    """Draws the share of each layer, and of each kind within each layer."""
    shares = snapshot.shares(estimator)
    kinds = list(snapshot.shares(estimator, "kind"))
    grid = np.zeros((len(kinds), snapshot.layers))
    for unit, score in zip(snapshot.units(estimator), snapshot.scores(estimator), strict=True):
        if unit.layer is not None and unit.kind in kinds:
            grid[kinds.index(unit.kind), unit.layer] += score
    with drawing(path, 2, 1, (7.0, 5.5)) as axes:
        upper, lower = axes[0, 0], axes[1, 0]
        upper.bar(range(snapshot.layers), [100 * share for share in shares.values()], color=BEFORE)
        upper.set(ylabel="share of importance, %", xlim=(-0.5, snapshot.layers - 0.5))
        upper.set_title(f"{snapshot.heading}: {estimator}, loss {snapshot.loss:.3f}", loc="left")
        image = lower.imshow(100 * grid / max(grid.sum(), 1e-300), aspect="auto", cmap="viridis")
        lower.set(xlabel="layer", yticks=range(len(kinds)), yticklabels=kinds)
        lower.figure.colorbar(image, ax=lower, label="%")


def plot_comparison(
    before: Snapshot,
    after: Snapshot,
    shifts: Sequence[Shift],
    path: Path,
    title: str = "",
    names: tuple[str, str] | None = None,
) -> None:
    """Draws layer shares before and after, and each layer's ratio with its interval, one column per estimator.

    The title of a column has the JS distance, its interval without what noise adds, and its paired p.

    Args:
        before: Reference.
        after: Of the same probe.
        shifts: What :func:`textkeep.importance.compare` says, an estimator each.
        path: Picture to write.
        title: Of the whole picture.
        names: Of the two, if they are no steps of a run.
    """
    labels = names or tuple(
        snapshot.heading.replace(snapshot.meta["name"], side, 1)
        for snapshot, side in ((before, "before"), (after, "after"))
    )
    width = 4.5 * len(shifts)
    lines = [part for line in title.splitlines() for part in wrap(line, int(LETTERS * width))]
    with drawing(path, 2, len(shifts), (width, 6.2 + 0.2 * len(lines))) as axes:
        for upper, lower, shift in zip(axes[0], axes[1], shifts, strict=True):
            estimator = shift.estimator
            for snapshot, colour, label in zip((before, after), (GREY, AFTER), labels, strict=True):
                shares = [100 * share for share in snapshot.shares(estimator).values()]
                upper.plot(shares, marker="o", markersize=3, color=colour, label=label)
            ratio = after.total(estimator) / max(before.total(estimator), 1e-300)
            upper.set(xlabel="layer", ylabel="share of importance, %")
            upper.set_ylim(bottom=0)
            upper.set_title(f"{estimator} (total x{ratio:.2g})\n{_distance(shift)}", loc="left", fontsize=9)
            upper.legend(frameon=False, fontsize=8)
            _plot_ratios(lower, shift)
        if lines:
            axes[0, 0].figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10)


def _distance(shift: Shift) -> str:
    """Returns the table's account of the JS distance, on two lines."""
    js = shift.metrics["js"]
    words = f"JS {js.value:.2g}" if js.expected is None else f"JS {js.value:.2g} (noise alone {js.expected:.2g})"
    if js.low is not None and js.high is not None:
        without = f" {js.corrected:.2g}" if js.corrected is not None else ""
        words += f"\nwithout it{without} [{js.low:.2g}, {js.high:.2g}]"
    return words if js.p is None else f"{words}, paired p {shown_p(js.p, shift.p_floor or 0.0)}"


def _plot_ratios(axis: Any, shift: Shift) -> None:
    """Draws the ratio of each layer's totals, with the 90 % interval if there is one."""
    found = list(shift.layers.values())
    places = range(len(found))
    axis.plot(places, [e.value for e in found], "o", markersize=3, color=AFTER)
    limits = [(n, e.low, e.high) for n, e in enumerate(found) if e.low is not None and e.high is not None]
    axis.vlines([n for n, _, _ in limits], [low for _, low, _ in limits], [high for *_, high in limits], color=AFTER)
    axis.axhline(1, color="#333333", linewidth=0.8)
    axis.set(xlabel="layer", ylabel="importance, after over before")
    axis.set_ylim(bottom=0)
    axis.set_title("1: unchanged; bars: 90 %" if limits else "1: unchanged; no interval", loc="left", fontsize=9)


def plot_attribution(found: Attribution, path: Path) -> None:
    """Draws each layer's nats in the change of the loss, and what reverting matrices actually regains."""
    columns = 2 if found.reverts else 1
    with drawing(path, 1, columns, (6.0 + 4.0 * (columns - 1), 3.8)) as axes:
        axis = axes[0, 0]
        values = list(found.layers.values())
        axis.bar(range(len(values)), values, color=[AFTER if v > 0 else BEFORE for v in values])
        labels = [name.removeprefix(LAYER_PREFIX) for name in found.layers]
        axis.set(xticks=range(len(values)), ylabel="change of the loss, nats", xlabel="layer")
        axis.set_xticklabels(labels, rotation=90, fontsize=7)
        axis.axhline(0, color="#333333", linewidth=0.8)
        axis.set_title(f"loss {found.loss_before:.3f} -> {found.loss_after:.3f}", loc="left")
        if found.reverts:
            _plot_reverts(axes[0, 1], found.reverts)


def _plot_reverts(axis: Any, reverts: Sequence[Revert]) -> None:
    for shift, key, colour in ((-0.2, "predicted", GREY), (0.2, "recovered", BEFORE)):
        places = [number + shift for number in range(len(reverts))]
        axis.barh(places, [getattr(r, key) for r in reverts], height=0.36, color=colour, label=key)
    names = [_short(r.names[0]) if r.what == "matrix" else f"{r.what} ({len(r.names)})" for r in reverts]
    axis.set(yticks=range(len(reverts)), yticklabels=names, xlabel="nats, reverted to the base values")
    axis.invert_yaxis()
    axis.axvline(0, color="#333333", linewidth=0.8)
    axis.legend(frameon=False, fontsize=8)


def _short(name: str) -> str:
    """Returns ``3.mlp.up_proj`` for ``model.layers.3.mlp.up_proj.weight``."""
    return name.rpartition("layers.")[2].removesuffix(".weight")


def plot_removal(test: RemovalTest, path: Path) -> None:
    """Draws the perplexity with nothing, the bottom, random and the top weights off, one panel per data set."""
    names = list(test.ordered)
    order = ("none", "bottom", "random", "top")
    with drawing(path, 1, len(names), (3.2 * len(names), 3.2)) as axes:
        for axis, name in zip(axes[0], names, strict=True):
            found = {row.removed: row.perplexity for row in test.rows if row.data == name}
            bars = axis.bar(order, [found[mode] for mode in order], color=[GREY, BEFORE, "#b58a2b", AFTER])
            axis.bar_label(bars, [f"{found[mode]:.3g}" for mode in order], fontsize=8)
            axis.set(yscale="log", ylabel="perplexity")
            axis.set_ylim(1, 5 * max(found.values()))
            axis.set_title(name, loc="left", fontsize=9)
        axes[0, 0].figure.suptitle(f"{test.fraction:.0%} of the weights off, by {test.estimator}", fontsize=9)


def plot_verification(found: Verification, path: Path) -> None:
    """Draws scores against the absolute change of the loss, one panel per score, at the largest shrinking."""
    from matplotlib.ticker import NullFormatter

    shrink = max(found.effects)
    effects = np.abs(found.effects[shrink])
    judged = {r.score: r for r in found.results if r.shrink == shrink}
    with drawing(path, 1, len(found.scores), (2.9 * len(found.scores), 3.2)) as axes:
        for axis, (name, values) in zip(axes[0], found.scores.items(), strict=True):
            axis.scatter(values, effects, s=12, color=BEFORE, alpha=0.8)
            axis.set(xscale="log", yscale="log", xlabel=f"{name} of the {found.granularity}")
            axis.xaxis.set_minor_formatter(NullFormatter())  # within a decade, their labels would overlap
            r = judged[name]
            axis.set_title(f"{r.spearman:.2f} [{r.low:.2f}, {r.high:.2f}]", loc="left", fontsize=9)
        axes[0, 0].set(ylabel="|change of the loss|, nats")
        band = judged["random"]
        axes[0, 0].figure.suptitle(
            f"shrunk by {shrink:g}: Spearman with 90 % interval; random scores: [{band.low:.2f}, {band.high:.2f}]",
            fontsize=9,
        )

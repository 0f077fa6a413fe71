"""Attention heads as a picture: which ones two measurements share, and how many they would share by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluation import shown_p
from .drawing import AFTER, BEFORE, GREY, drawing

if TYPE_CHECKING:
    from ...importance.heads import HeadEffects, HeadOverlap

BOTH, NONE = "#4b2e6f", "#e9e9e9"


def plot_heads(views: Mapping[str, HeadEffects], overlaps: Sequence[tuple[str, str, HeadOverlap]], path: Path) -> None:
    """Draws a row for each pair: where the top heads lie, and the overlap among those of random sets.

    Args:
        views: Name -> measurement.
        overlaps: Names of two of them, and what they share.
        path: Picture to write.
    """
    with drawing(path, len(overlaps), 2, (9.5, 0.6 + 3.2 * len(overlaps))) as axes:
        for (left, right), (first, second, found) in zip(axes, overlaps, strict=True):
            _places(left, views[first], (first, second), found)
            _chance(right, found)


def _places(axis: Any, view: HeadEffects, names: tuple[str, str], found: HeadOverlap) -> None:
    """Draws a cell for each head: its layer across, its number in the layer upwards."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    kinds = dict.fromkeys(found.only_first, 1) | dict.fromkeys(found.only_second, 2) | dict.fromkeys(found.shared, 3)
    layers, tallest = int(view.layers.max()) + 1, int(np.bincount(view.layers).max())
    cells = np.full((tallest, layers), np.nan)
    seen = [0] * layers
    for name, layer in zip(view.names, view.layers.tolist(), strict=True):
        cells[seen[layer], layer] = kinds.get(name, 0)
        seen[layer] += 1
    colours = [NONE, BEFORE, AFTER, BOTH]
    axis.imshow(cells, cmap=ListedColormap(colours), vmin=0, vmax=3, aspect="auto", origin="lower")
    axis.set_xticks(np.arange(-0.5, layers), minor=True)
    axis.set_yticks(np.arange(-0.5, tallest), minor=True)
    axis.grid(which="minor", color="white", linewidth=0.8)
    axis.tick_params(which="minor", length=0)
    axis.set(xlabel="layer", ylabel="head")
    labels = [f"{names[0]} ({len(found.only_first)})", f"{names[1]} ({len(found.only_second)})"]
    labels.append(f"both ({len(found.shared)})")
    patches = [Patch(color=colour, label=label) for colour, label in zip(colours[1:], labels, strict=True)]
    axis.legend(handles=patches, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def _chance(axis: Any, found: HeadOverlap) -> None:
    """Draws the overlaps of random sets in the same layers, the one found, and that of halves of the examples."""
    chance, shared = found.chance, len(found.shared)
    axis.bar(range(len(chance.distribution)), chance.distribution, width=1.0, color=GREY, label="same layers, random")
    axis.axvline(shared, color=BOTH, linewidth=2, label=f"found: {shared} of {found.top}")
    if found.halves is not None:
        ends = (found.halves.across_low, found.halves.across_high)
        axis.axvspan(*ends, color=BOTH, alpha=0.12, label="halves of the examples, across")
        within = (found.halves.first + found.halves.second) / 2
        axis.axvline(within, color=BOTH, linestyle=":", label="halves, within each")
    axis.set(xlabel=f"shared heads of {found.top}", ylabel="probability", xlim=(-0.6, found.top + 0.6))
    axis.set_title(f"p {shown_p(chance.p, chance.p_floor)}; bands: 90 %", loc="left", fontsize=9)
    axis.legend(frameon=False, fontsize=8)

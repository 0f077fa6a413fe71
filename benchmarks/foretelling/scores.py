"""Scores of pieces from measurements on the scored examples: gradient sums, and removals of the same piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .pieces import TWINS

Row = Mapping[str, Any]
Parts = dict[str, np.ndarray]  # sum -> (N,) of a piece, "tokens" (N,), "drawn ..." with labels of the model, "path ..."
OUTPUTS = ("o", "down")

GRADIENT: dict[str, Callable[[Parts], float]] = {
    "`taylor`, E Σ\\|w g\\|": lambda p: p["taylor"].mean(),
    "`fisher`, E Σ g²": lambda p: p["fisher"].mean(),
    "`signed_taylor`, E\\|s\\|": lambda p: np.abs(p["s"]).mean(),
    "\\|E s\\|": lambda p: abs(p["s"].mean()),
    "-E s, first order": lambda p: -p["s"].mean(),
    "-E s + E s² / 2": lambda p: (-p["s"] + p["s"] ** 2 / 2).mean(),
    "E T s² / 2, Gauss-Newton of the block, labels of the data": lambda p: (p["tokens"] * p["s"] ** 2).mean() / 2,
    "E T ŝ² / 2, Gauss-Newton of the block, labels of the model": lambda p: (
        (p["drawn tokens"] * p["drawn s"] ** 2).mean() / 2
    ),
    "-E s + E T s² / 2, second order, labels of the data": lambda p: (-p["s"] + p["tokens"] * p["s"] ** 2 / 2).mean(),
    "-E s + E T ŝ² / 2, the same, labels of the model": lambda p: second(p, p["drawn s"] ** 2),
    "-E s + E T Σ(w ĝ)² / 2, its diagonal, labels of the model": lambda p: second(p, p["drawn diagonal"]),
    "-E ∫ s, path integral with all layers scaled together, 3 nodes": lambda p: -p["path s"].mean(),
    "-E s at half strength of the layer, path integral with 1 node a layer, 8 examples": lambda p: (
        -p["blocks s"].mean()
    ),
}
"""s = <w, g> of an example and a piece, g the gradient of its mean loss over T tokens; E the mean over examples."""


def second(parts: Parts, curvature: np.ndarray) -> float:
    """Second-order change of the loss without a piece: T times the square, since g belongs to a mean over T tokens."""
    return float(-parts["s"].mean() + (parts["drawn tokens"] * curvature).mean() / 2)


def parts_of(rows: Mapping[str, Row], layer: int, kind: str | None, head: int | None) -> Parts:
    """Picks the sums of a matrix (``kind``), a head of the output projection, or a whole layer (neither)."""
    found: Parts = {}
    for source, prefix in (("data", ""), ("drawn", "drawn "), ("path", "path "), ("blocks", "blocks ")):
        if source not in rows:
            continue
        matrices = [tuple(m) for m in rows[source]["matrices"]]
        for name, values in rows[source]["sums"].items():
            array = np.array(values)
            if name == "tokens":
                found[prefix + name] = array
            elif head is not None and name.endswith(".heads"):
                outputs = [at for at, what in matrices if what == "o"]
                found[prefix + name.removesuffix(".heads")] = array[:, outputs.index(layer), head]
            elif head is None and not name.endswith(".heads"):
                inside = [i for i, (at, what) in enumerate(matrices) if at == layer and kind in (None, what)]
                found[prefix + name] = array[:, inside].sum(axis=1)
    return found


def scored(rows: Mapping[str, Row], row: Row) -> list[dict[str, float]]:
    """Scores of a piece, once for each matrix that it removes.

    Args:
        rows: By name; the gradient sums among them.
        row: Of the piece.
    """
    layer, level = row["layer"], row["level"]
    kinds: Sequence[str | None] = [None]
    head = None
    if level == "matrix":
        kinds = [kind for kind, twins in TWINS.items() if twins == row["name"].split(".")[1]]
    elif level == "head":
        head = int(row["name"].rpartition(".")[2])
    found = []
    for kind in kinds:
        parts = parts_of(rows, layer, kind, head)
        scores = {}
        for name, make in GRADIENT.items():
            try:
                scores[name] = float(make(parts))
            except KeyError:  # not measured yet
                continue
        found.append(scores)
    return found

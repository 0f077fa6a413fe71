"""How few rows and columns of the matrices hold the importance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...run import Run
from .figure import Figure, drawing
from .pairs import DEPTH, by_pair, pairs_of
from .style import COLOURS, colour, curve, label

SIDES = {"rows": "rows (outputs)", "columns": "columns (inputs)"}
NOTE = "0: all rows (columns) weigh the same; near 1: a few hold everything. Mean over a layer's matrices."


def concentration(runs: Sequence[Run]) -> Figure | None:
    """Draws the Gini coefficient of row and column sums by layer, first (dotted) against last."""
    found = {}
    for probe, estimator in pairs_of(runs):
        traces = []
        for index, run in enumerate(runs):
            for step, dash, symbol in _shown_steps(run, probe, estimator):
                for place, (side, values) in enumerate(_ginis(run, probe, estimator, step).items()):
                    shade = colour(index) if len(runs) > 1 else COLOURS[2 * place]
                    name = ", ".join([*([run.name] if len(runs) > 1 else []), SIDES[side], f"step {step}"])
                    points = [(value, math.nan, math.nan) for value in values]
                    hover = f"{label(name)}<br>layer %{{x}}: %{{y:.3g}}<extra></extra>"
                    style = {"dash": dash, "symbol": symbol if side == "rows" else symbol.replace("circle", "diamond")}
                    traces.append(curve(name, range(len(values)), points, shade, hovertemplate=hover, **style))
        if traces:
            found[f"{probe}|{estimator}"] = drawing(traces, DEPTH, "Gini coefficient")
    return by_pair("gini", "Concentration on rows and columns", NOTE, found, runs)


def _shown_steps(run: Run, probe: str, estimator: str) -> list[tuple[int, str, str]]:
    steps = [line["step"] for line in run.importance.of(probe, estimator)]
    if len(steps) < 2:
        return [(step, "solid", "circle") for step in steps]
    return [(steps[0], "dot", "circle-open"), (steps[-1], "solid", "circle")]


def _ginis(run: Run, probe: str, estimator: str, step: int) -> dict[str, list[float]]:
    """Returns side -> mean Gini coefficient of the matrices of each layer; nothing where the snapshot cannot tell."""
    from ....importance.structure import structure

    snapshot = run.importance.snapshot(probe, step)
    if snapshot is None or not all(array.size for array in snapshot.rows.get(estimator) or [np.zeros(0)]):
        return {}
    found = structure(snapshot, estimator)
    sides: dict[str, list[float]] = {side: [] for side in SIDES}
    for layer in range(snapshot.layers):
        here = [s for s, matrix in zip(found, snapshot.table, strict=True) if matrix.layer == layer]
        sides["rows"].append(float(np.mean([s.gini_rows for s in here])))
        sides["columns"].append(float(np.mean([s.gini_columns for s in here])))
    return sides

"""Figures of the structure inside layers, and of the removal test: do the weights that score high count?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import plotly.graph_objects as go

from ...measurements import Measurement, Removal
from ...run import Run
from .figure_style import COLOURS, NEUTRAL, Figure, bars, colour, curve, figure, label

SIDES = {"rows": "rows (outputs)", "columns": "columns (inputs)"}
REMOVED = {"top": COLOURS[1], "random": NEUTRAL, "bottom": COLOURS[0]}


def kinds(runs: Sequence[Run]) -> dict[str, Figure]:
    """Share of each kind of matrix at the first and the last measurement, for each ``probe|estimator``."""
    found = {}
    for probe, estimator in dict.fromkeys(pair for run in runs for pair in run.importance.pairs):
        traces = []
        for index, run in enumerate(runs):
            lines = [line for line in run.importance.of(probe, estimator) if line.get("kinds")]
            for line, faded in _ends(lines):
                name = f"{run.name}, step {line['step']}" if len(runs) > 1 else f"step {line['step']}"
                traces.append(
                    go.Bar(
                        x=list(line["kinds"]),
                        y=[100 * share for share in line["kinds"].values()],
                        name=label(name),
                        marker={"color": colour(index)},
                        opacity=0.4 if faded else 1.0,  # the trace's: the legend shows it too
                        hovertemplate=f"{label(name)}<br>%{{x}}: %{{y:.3g}} %<extra></extra>",
                    )
                )
        if traces:
            found[f"{probe}|{estimator}"] = figure(
                traces, "kind of matrix", "share of the importance, %", barmode="group"
            )
    return found


def _ends(lines: Sequence[Measurement]) -> list[tuple[Measurement, bool]]:
    """The first and the last measurement, and whether it is the earlier of two."""
    if len(lines) < 2:
        return [(line, False) for line in lines]
    return [(lines[0], True), (lines[-1], False)]


def concentration(runs: Sequence[Run]) -> dict[str, Figure]:
    """Gini coefficient of row and column sums by layer, first (dotted) against last, for each ``probe|estimator``."""
    found = {}
    for probe, estimator in dict.fromkeys(pair for run in runs for pair in run.importance.pairs):
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
            found[f"{probe}|{estimator}"] = figure(traces, "layer (0 = next to the embeddings)", "Gini coefficient")
    return found


def _shown_steps(run: Run, probe: str, estimator: str) -> list[tuple[int, str, str]]:
    steps = [line["step"] for line in run.importance.of(probe, estimator)]
    if len(steps) < 2:
        return [(step, "solid", "circle") for step in steps]
    return [(steps[0], "dot", "circle-open"), (steps[-1], "solid", "circle")]


def _ginis(run: Run, probe: str, estimator: str, step: int) -> dict[str, list[float]]:
    """Side -> mean Gini coefficient of the matrices of each layer; nothing where the snapshot cannot tell."""
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


def _named(run: Run) -> Iterator[tuple[str, Removal]]:
    """The removal tests of a run, each under a name of its own."""
    names: list[str] = []
    for test in run.importance.removals:
        name = f"{100 * test['fraction']:.3g} % of the weights off, by {test['estimator']}, chosen per {test['scope']}"
        names.append(name)
        yield name if names.count(name) == 1 else f"{name} ({names.count(name)})", test


def removals(runs: Sequence[Run]) -> dict[str, Figure]:
    """Increase of the loss with top, random and bottom weights off, for each removal test found."""
    found = {}
    for run in runs:
        for name, test in _named(run):
            data = list(dict.fromkeys(row["data"] for row in test["rows"]))
            traces = []
            for removed, shade in REMOVED.items():
                rows = {row["data"]: row for row in test["rows"] if row["removed"] == removed}
                if set(rows) != set(data):
                    continue
                points = [(rows[d]["increase"], rows[d]["low"], rows[d]["high"]) for d in data]
                text = [f"perplexity {rows[d]['perplexity']:.4g}" for d in data]
                hover = f"{removed} off, %{{x}}: %{{y:+.3g}} nats/token<br>%{{customdata}}<extra></extra>"
                traces.append(
                    go.Bar(
                        x=data,
                        y=[value for value, _, _ in points],
                        error_y=bars(points),
                        name=removed,
                        customdata=text,
                        marker={"color": shade},
                        hovertemplate=hover,
                    )
                )
            if traces:
                key = f"{run.name}: {name}" if len(runs) > 1 else name
                found[key] = figure(traces, "", "increase of the loss, nats/token", barmode="group")
    return found

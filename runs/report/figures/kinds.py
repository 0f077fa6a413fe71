"""Which kinds of matrices hold the importance."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ...measurements import Measurement
from ...run import Run
from .figure import Figure, drawing
from .pairs import by_pair, pairs_of
from .style import colour, label, pattern

NOTE = "q, k, v, o: attention. gate, up, down: MLP. Pale: first measurement."


def kinds(runs: Sequence[Run]) -> Figure | None:
    """Draws the share of each kind of matrix at the first and the last measurement."""
    found = {}
    for probe, estimator in pairs_of(runs):
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
                        marker={"color": colour(index), "pattern": {"shape": pattern(index)}},
                        opacity=0.4 if faded else 1.0,  # the trace's: the legend shows it too
                        hovertemplate=f"{label(name)}<br>%{{x}}: %{{y:.3g}} %<extra></extra>",
                    )
                )
        if traces:
            found[f"{probe}|{estimator}"] = drawing(
                traces, "kind of matrix", "share of the importance, %", barmode="group"
            )
    return by_pair("kinds", "Kinds of matrices", NOTE, found, runs)


def _ends(lines: Sequence[Measurement]) -> list[tuple[Measurement, bool]]:
    """Returns the first and the last measurement, and whether it is the earlier of two."""
    if len(lines) < 2:
        return [(line, False) for line in lines]
    return [(lines[0], True), (lines[-1], False)]

"""Where importance lies on each probe: all their profiles side by side, first and last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...run import Run
from .figure import Drawing, Figure, drawing, one_of
from .pairs import DEPTH
from .style import colour, curve, symbol

NOTE = "Dotted: first measurement. Solid: the last. What moved only on questions is due to the form of their answers."


def probe_shares(runs: Sequence[Run]) -> Figure | None:
    """Draws the layer shares of all probes of a run by a selectable estimator; None if none has two."""
    drawn = {}
    for run in runs:
        for estimator in run.importance.estimators:
            name = f"{run.name}, {estimator}" if len(runs) > 1 else estimator
            if (made := _shares(run, estimator)) is not None:
                drawn[name] = made
    return one_of("probe-shares", "Layer shares on all probes", drawn, NOTE)


def _shares(run: Run, estimator: str) -> Drawing | None:
    traces = []
    probes = [probe for probe, found in run.importance.pairs if found == estimator]
    for place, probe in enumerate(probes):
        lines = run.importance.of(probe, estimator)
        if len(lines) < 2:
            continue
        for line, dash, shown in ((lines[0], "dot", False), (lines[-1], "solid", True)):
            points = [(100 * share, math.nan, math.nan) for share in line["shares"].values()]
            name = f"{probe}, step {line['step']}"
            style = {"dash": dash, "symbol": symbol(place), "showlegend": shown}
            traces.append(curve(name, range(len(points)), points, colour(place), **style))
    axis = {"title": {"text": "share of the importance, %"}, "rangemode": "tozero", "zeroline": False}
    return drawing(traces, DEPTH, "", yaxis=axis) if traces else None

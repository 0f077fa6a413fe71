"""The profile of the layers: its first measurement, and the one at the slider's position."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...run import Run
from .figure import Drawing, Figure, drawing
from .pairs import DEPTH, by_pair, pairs_of
from .style import colour, curve, label, symbol


def profile(runs: Sequence[Run]) -> Figure | None:
    """Draws layer shares at the first and the last measurement.

    The last one's trace carries the other measurements (``meta``) for the page's slider.
    """
    drawn = {f"{probe}|{estimator}": _profile(runs, probe, estimator) for probe, estimator in pairs_of(runs)}
    note = "Dotted: first measurement. Solid: the slider's step, at first the last."
    return by_pair("profile", "Profile of the layers", note, drawn, runs, follows="profile")


def _profile(runs: Sequence[Run], probe: str, estimator: str) -> Drawing:
    traces = []
    for index, run in enumerate(runs):
        lines = run.importance.of(probe, estimator)
        ends = [(lines[0], "dot", "-open"), (lines[-1], "solid", "")] if len(lines) > 1 else []
        ends = ends or [(line, "solid", "") for line in lines[:1]]
        for line, dash, filled in ends:
            values = list(line["shares"].values())
            points = [(100 * v, math.nan, math.nan) for v in values]
            name = f"{run.name}, step {line['step']}" if len(runs) > 1 else f"step {line['step']}"
            hover = f"{label(name)}<br>layer %{{x}}: %{{y:.3g}} %<extra></extra>"
            style = {"dash": dash, "symbol": f"{symbol(index)}{filled}", "hovertemplate": hover}
            trace = curve(name, range(len(values)), points, colour(index), **style)
            if line is lines[-1] and len(lines) > 1:
                trace.meta = {
                    "name": label(f"{run.name}, " if len(runs) > 1 else ""),
                    "steps": [each["step"] for each in lines],
                    "shares": [[100 * share for share in each["shares"].values()] for each in lines],
                }
            traces.append(trace)
    axis = {"title": {"text": "share of the importance, %"}, "rangemode": "tozero", "zeroline": False}
    return drawing(traces, DEPTH, "", yaxis=axis)

"""The profile of the layers at the end, by arm."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from ...measurements import Measurement
from ..study_data import StudyData
from ..study_run import Pair
from .figure import Drawing, Figure, drawing, one_of
from .style import NEUTRAL, label, line


def profile_by_arm(data: StudyData) -> Figure | None:
    """Draws layer shares at the end, mean over seeds, with the untouched LLM's, for each probe and estimator."""
    options = {", ".join(pair): _profiles(data, pair) for pair in data.pairs}
    return one_of("profile-by-arm", "Profile of importance", options, "At the end of the runs, mean over seeds.")


def _profiles(data: StudyData, pair: Pair) -> Drawing:
    starts = [run.first[pair] for arm in data.trained for run in arm.runs.values() if pair in run.first]
    traces = _profile("untouched", starts[:1], {"color": NEUTRAL, "dash": "dot"})
    for index, arm in enumerate(data.trained):
        traces += _profile(arm.name, [r.last[pair] for r in arm.runs.values() if pair in r.last], line(index))
    return drawing(traces, "decoder layer", "share of importance", legend={})


def _profile(name: str, lines: Sequence[Measurement], style: dict[str, Any]) -> list[Any]:
    if not lines:
        return []
    layers = list(lines[0]["shares"])
    shares = [fmean(line["shares"][layer] for line in lines) for layer in layers]
    return [go.Scatter(x=list(range(len(layers))), y=shares, mode="lines+markers", name=label(name), line=style)]

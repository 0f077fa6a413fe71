"""Figures of a study's scores and profiles: text kept against speech gained, and shares of importance by arm."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from ...measurements import Measurement
from ..study_choice import blank, one_of
from ..study_data import StudyData
from ..study_run import MAIN, Measure, Pair
from ..tables.study_tables import difference, score
from .figure_style import NEUTRAL, label, line, marker

SPEECH = Measure(MAIN, "speech")


def frontier(data: StudyData) -> go.Figure | None:
    """One point an arm: change of a text measure since the untouched LLM, and speech accuracy, with intervals.

    A choice among the text measures; to the right is always better.
    """
    measures = [measure for measure in data.measures if measure.modality == "text"]
    options = {measure.label: _frontier(data, measure) for measure in measures}
    return one_of({name: figure for name, figure in options.items() if figure is not None})


def _frontier(data: StudyData, text: Measure) -> go.Figure | None:
    start = data.untouched
    if start is None or text not in start.scores:
        return None
    drawn = blank(f"{text.label}: change since the untouched LLM, {text.unit}", "spoken questions right, %")
    for index, arm in enumerate(data.trained):
        if not arm.scores.get(text) or not arm.scores.get(SPEECH):
            continue
        ours = arm.by_seed(text)
        kept = difference(ours, dict.fromkeys(ours, start.scores[text]), text)
        heard = score(arm.scores[SPEECH], SPEECH)
        drawn.add_scatter(
            x=[text.scale * kept.estimate],
            y=[100 * heard.estimate],
            error_x=_bars(kept, text.scale),
            error_y=_bars(heard, 100),
            mode="markers",
            name=label(arm.name),
            marker=marker(index, 11),
        )
    if not drawn.data:
        return None
    direction = "reversed" if text.better < 0 else True
    return drawn.update_xaxes(zeroline=True, zerolinecolor=NEUTRAL, autorange=direction)


def _bars(found: Any, scale: float) -> dict[str, Any]:
    """Error bars in the unit of the axis."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (found.high - found.estimate)],
        "arrayminus": [scale * (found.estimate - found.low)],
        "thickness": 1.2,
        "width": 4,
    }


def profiles(data: StudyData) -> go.Figure | None:
    """Layer shares at the end by arm, mean over seeds, with the untouched LLM's; a choice of probe and estimator."""
    return one_of({", ".join(pair): _profiles(data, pair) for pair in data.pairs})


def _profiles(data: StudyData, pair: Pair) -> go.Figure:
    drawn = blank("decoder layer", "share of importance")
    starts = [run.first[pair] for arm in data.trained for run in arm.runs.values() if pair in run.first]
    _profile(drawn, "untouched", starts[:1], {"color": NEUTRAL, "dash": "dot"})
    for index, arm in enumerate(data.trained):
        _profile(drawn, arm.name, [r.last[pair] for r in arm.runs.values() if pair in r.last], line(index))
    return drawn


def _profile(drawn: go.Figure, name: str, lines: list[Measurement], style: dict[str, Any]) -> None:
    if not lines:
        return
    layers = list(lines[0]["shares"])
    shares = [fmean(line["shares"][layer] for line in lines) for layer in layers]
    drawn.add_scatter(x=list(range(len(layers))), y=shares, mode="lines+markers", name=label(name), line=style)

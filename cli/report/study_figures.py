"""Figures of a study: text kept against speech gained, and profiles of importance by arm."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from ...evaluation import common_items, hierarchical_bootstrap
from ..study.spec import UNTOUCHED
from .figure_style import NEUTRAL, colour, label
from .study_data import MAIN, Measure, StudyData

HEIGHT = 460


def frontier(data: StudyData) -> go.Figure | None:
    """One point an arm: change of text accuracy since the untouched LLM, and speech accuracy, with intervals."""
    text, speech = Measure(MAIN, "text"), Measure(MAIN, "speech")
    start = data.arm(UNTOUCHED)
    if start is None or not start.scores.get(text):
        return None
    drawn = go.Figure()
    for index, arm in enumerate(arm for arm in data.arms if arm is not start):
        if not arm.scores.get(text) or not arm.scores.get(speech):
            continue
        after, before = common_items(arm.scores[text], start.scores[text])
        kept = hierarchical_bootstrap(after, before)
        heard = hierarchical_bootstrap(common_items(arm.scores[speech])[0])
        drawn.add_scatter(
            x=[100 * kept.estimate],
            y=[100 * heard.estimate],
            error_x=_bars(kept),
            error_y=_bars(heard),
            mode="markers+text",
            text=[label(arm.name)],
            textposition="top right",
            name=label(arm.name),
            marker={"color": colour(index), "size": 11},
        )
    if not drawn.data:
        return None
    drawn.add_vline(x=0, line={"color": NEUTRAL, "dash": "dot"})
    drawn.update_layout(
        template="plotly_white",
        height=HEIGHT,
        xaxis_title="written questions: change since the untouched LLM, points",
        yaxis_title="spoken questions right, %",
        showlegend=False,
    )
    return drawn


def _bars(found: Any) -> dict[str, Any]:
    """Error bars in percent."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [100 * (found.high - found.estimate)],
        "arrayminus": [100 * (found.estimate - found.low)],
        "thickness": 1.2,
        "width": 4,
    }


def profiles(data: StudyData) -> dict[str, go.Figure]:
    """Layer shares by arm, mean over seeds, with the untouched LLM's; one figure a probe and estimator."""
    lines = [line for arm in data.arms for line in arm.importance]
    figures = {}
    for probe, estimator in dict.fromkeys((line["probe"], line["estimator"]) for line in lines):
        drawn = go.Figure()
        first = [
            x for arm in data.arms for x in arm.first_importance if (x["probe"], x["estimator"]) == (probe, estimator)
        ]
        _profile(drawn, "untouched", first[:1], NEUTRAL, "dot")
        for index, arm in enumerate(arm for arm in data.arms if arm.name != UNTOUCHED):
            own = [x for x in arm.importance if (x["probe"], x["estimator"]) == (probe, estimator)]
            _profile(drawn, arm.name, own, colour(index), "solid")
        drawn.update_layout(
            template="plotly_white", height=HEIGHT, xaxis_title="decoder layer", yaxis_title="share of importance"
        )
        figures[f"{probe}, {estimator}"] = drawn
    return figures


def _profile(drawn: go.Figure, name: str, lines: list[dict[str, Any]], shade: str, dash: str) -> None:
    if not lines:
        return
    layers = list(lines[0]["shares"])
    shares = [fmean(line["shares"][layer] for line in lines) for layer in layers]
    style = {"color": shade, "dash": dash}
    drawn.add_scatter(x=list(range(len(layers))), y=shares, mode="lines+markers", name=label(name), line=style)

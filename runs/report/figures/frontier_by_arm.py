"""Text kept against speech gained, one point per arm."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from ..estimates import difference, score, share_items
from ..study_data import StudyData
from ..study_run import MAIN, Measure
from .figure import Drawing, Figure, drawing, one_of
from .style import NEUTRAL, label, marker

SPEECH = Measure(MAIN, "speech")
NOTE = "95 % intervals over seeds and items; over items only for an arm with one seed."


def frontier_by_arm(data: StudyData) -> Figure | None:
    """Draws the change of a text measure since the untouched LLM, and speech accuracy, with intervals.

    A selection among the text measures; to the right is always better.
    """
    measures = [measure for measure in data.measures if measure.modality == "text"]
    options = {measure.label: _frontier(data, measure) for measure in measures}
    found = {name: drawn for name, drawn in options.items() if drawn is not None}
    return one_of("frontier-by-arm", "Text kept against speech gained", found, NOTE)


def _frontier(data: StudyData, text: Measure) -> Drawing | None:
    start = data.untouched
    if start is None or text not in start.scores:
        return None
    traces = []
    for index, arm in enumerate(data.trained):
        if not arm.scores.get(text) or not arm.scores.get(SPEECH):
            continue
        ours = arm.by_seed(text)
        before = dict.fromkeys(ours, start.scores[text])
        if not share_items(ours, before):
            continue
        kept = difference(ours, before, text)
        heard = score(arm.scores[SPEECH], SPEECH)
        traces.append(
            go.Scatter(
                x=[text.scale * kept.estimate],
                y=[100 * heard.estimate],
                error_x=_bars(kept, text.scale),
                error_y=_bars(heard, 100),
                mode="markers",
                name=label(arm.name),
                marker=marker(index, 11),
            )
        )
    if not traces:
        return None
    axis = {
        "title": {"text": f"{text.label}: change since the untouched LLM, {text.unit}"},
        "zeroline": True,
        "zerolinecolor": NEUTRAL,
        "autorange": "reversed" if text.better < 0 else True,
    }
    return drawing(traces, "", "spoken questions right, %", xaxis=axis, legend={})


def _bars(found: Any, scale: float) -> dict[str, Any]:
    """Makes error bars in the unit of the axis."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (found.high - found.estimate)],
        "arrayminus": [scale * (found.estimate - found.low)],
        "thickness": 1.2,
        "width": 4,
    }

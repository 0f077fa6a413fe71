"""What learning speech cost in text, and how well speech is understood: the first picture of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ..numbers import SPLITS
from ..outcome import Outcome, Speech, Text
from .figure import Figure, drawing, single
from .style import NEUTRAL, bars, colour, label, symbol


def cost(found: Sequence[Outcome]) -> Figure | None:
    """Draws one point per run with its intervals, beside the untouched LLM; None unless every run has both figures."""
    both = [(one.name, one.text, one.speech) for one in found if one.text is not None and one.speech is not None]
    if len(both) < len(found) or not both:
        return None
    traces = [_point(index, *one) for index, one in enumerate(both)]
    _, _, speech = both[0]
    if speech.start is not None:
        traces.insert(0, _untouched(speech.start[0]))
    up = f"spoken {SPLITS[speech.stage]} questions right, %"
    line = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    drawn = drawing(traces, "plain text lost, nats a token", up)
    drawn["layout"]["shapes"] = [{**line, "line": {"color": NEUTRAL, "width": 1, "dash": "dot"}}]
    drawn["layout"]["yaxis"]["rangemode"] = "tozero"
    note = (
        "Change of the loss since the untouched LLM: further left, more text is kept; further up, more "
        "speech is understood. Bars: 95 % intervals over passages and over questions."
    )
    return single("cost", "Text lost, speech understood", drawn, note, wide=True)


def _point(index: int, name: str, text: Text, speech: Speech) -> Any:
    heard = [100 * part for part in speech.right]
    return go.Scatter(
        x=[text.cost[0]],
        y=[heard[0]],
        error_x=bars([text.cost]),
        error_y=bars([(heard[0], heard[1], heard[2])]),
        name=label(name),
        mode="markers",
        marker={"color": colour(index), "size": 14, "symbol": symbol(index)},
        showlegend=True,
    )


def _untouched(right: float) -> Any:
    marker = {"color": NEUTRAL, "size": 11, "symbol": "circle-open"}
    return go.Scatter(
        x=[0.0],
        y=[100 * right],
        name="untouched LLM",
        mode="markers",
        marker=marker,
        showlegend=True,
        cliponaxis=False,
    )

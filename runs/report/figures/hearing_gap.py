"""Whether a run listens: the hearing gap over steps."""

from __future__ import annotations

from collections.abc import Sequence

from ...run import Run
from .figure import Figure, drawing
from .over_steps import BARS, by_stage, stages
from .style import colour, curve, label, symbol

NOTE = (
    "Loss on the answers with clips swapped between questions, minus the loss with the right clips. "
    f"A model that does not listen stays at 0. {BARS} (bootstrap over items)."
)


def hearing_gap(runs: Sequence[Run]) -> Figure | None:
    """Draws the gap with bootstrap intervals."""
    found = {}
    for stage in stages(runs):
        traces = []
        for index, run in enumerate(runs):
            series = run.evaluations[stage].series("hearing_gap") if stage in run.evaluations else []
            if series:
                hover = f"{label(run.name)}<br>step %{{x}}: %{{y:.3g}} nats per token<extra></extra>"
                points = [(value, low, high) for _, value, low, high in series]
                style = {"symbol": symbol(index), "hovertemplate": hover}
                traces.append(curve(run.name, [s for s, *_ in series], points, colour(index), **style))
        if traces:
            axis = {"title": {"text": "hearing gap, nats/token"}, "zeroline": True}
            found[stage] = drawing(traces, "step", "", yaxis=axis, showlegend=len(traces) > 1)
    return by_stage("hearing", "Hearing gap", NOTE, found)

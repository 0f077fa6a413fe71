"""Shift of importance and text lost, one point per run."""

from __future__ import annotations

import plotly.graph_objects as go

from ..relations import Relation, relations
from ..study_data import StudyData
from .figure import Drawing, Figure, drawing, one_of
from .style import NEUTRAL, label, marker


def shift_and_loss(data: StudyData) -> Figure | None:
    """Draws a scatter plot of each relation, one colour per arm."""
    ran = [run.arm for run in data.runs]
    # The arms of the other figures come first, so that an untested one does not change their colours.
    arms = list(dict.fromkeys([*(arm.name for arm in data.trained if arm.name in ran), *ran]))
    options = {f"{r.loss} against {r.shift}": _scatter(r, arms) for r in relations(data)}
    return one_of("shift-and-loss", "Shift and text lost", options, "One point a run.")


def _scatter(relation: Relation, arms: list[str]) -> Drawing:
    traces = []
    for arm in dict.fromkeys(run.arm for run in relation.runs):
        places = [place for place, run in enumerate(relation.runs) if run.arm == arm]
        traces.append(
            go.Scatter(
                x=[relation.x[place] for place in places],
                y=[relation.y[place] for place in places],
                customdata=[
                    label(f"{relation.runs[place].variant}, seed {relation.runs[place].seed}") for place in places
                ],
                hovertemplate="%{customdata}<br>%{x:.3g}, %{y:.3g}<extra></extra>",
                mode="markers",
                name=label(arm),
                marker=marker(arms.index(arm), 9),
            )
        )
    axis = {"title": {"text": relation.loss}, "zeroline": True, "zerolinecolor": NEUTRAL}
    return drawing(traces, relation.shift, "", yaxis=axis, legend={})

"""Does text get lost where importance shifts? Over all runs of a study, those at points not chosen too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isnan

import plotly.graph_objects as go

from ....evaluation import Interval, correlation
from ..study_choice import blank, one_of
from ..study_data import StudyData
from ..study_run import Pair, RunResult
from ..tables.comparison import Table
from ..tables.study_tables import DASH, interval
from .figure_style import NEUTRAL, label, marker
from .study_shift import first_estimator, loss_change, value_of

_SHIFTS = {"JS distance": "js", "log total ratio": "log_total_ratio"}
_NOTE = (
    "One point a run, at all points of the grids; text lost since the untouched LLM on the same items, more is worse. "
    "In brackets 95 % bootstrap intervals over whole arms, for runs of an arm are alike; with fewer than five arms "
    "they are [-1, 1]. Within arms, over runs: Spearman's partial correlation given the arm, which differences between "
    "arms cannot make. Nothing is adjusted for the number of rows, and a correlation over arms does not say what "
    "causes what."
)


@dataclass(frozen=True)
class Relation:
    """Two figures of the same runs.

    Attributes:
        shift: Name of the first.
        loss: Name of the second.
        runs: Those that have both.
        x: Values of the first.
        y: Values of the second.
    """

    shift: str
    loss: str
    runs: list[RunResult]
    x: list[float]
    y: list[float]


def relations(data: StudyData) -> Iterator[Relation]:
    """Every shift against every text measure that was lost, for the first estimator."""
    for pair in first_estimator(data) if data.pairs else []:
        for name, metric in _SHIFTS.items():
            for title, lost in _losses(data, pair).items():
                points = [
                    (run, value_of(metric)(shift), value)
                    for run in data.runs
                    if (shift := run.shift(pair)) is not None and (value := lost(run)) is not None
                ]
                if len(points) > 2:
                    runs, x, y = (list(side) for side in zip(*points, strict=True))
                    yield Relation(f"{name}, {pair[0]}", title, runs, x, y)


def _losses(data: StudyData, pair: Pair) -> dict[str, Callable[[RunResult], float | None]]:
    """Title -> how much of a text measure a run lost; the probe's own loss is the one that was held out with it."""
    found: dict[str, Callable[[RunResult], float | None]] = {}
    untouched = data.untouched
    for measure in data.measures if untouched else []:
        if measure.modality == "text" and untouched is not None:
            title = f"{measure.label} lost, {measure.unit}"
            found[title] = lambda run, m=measure, start=untouched: run.lost(m, start)  # type: ignore[misc]

    def of_the_probe(run: RunResult) -> float | None:
        shift = run.shift(pair)
        return None if shift is None else loss_change(shift)

    return found | {f"loss on {pair[0]} gained, nats": of_the_probe}


def correlation_table(data: StudyData) -> Table | None:
    """Spearman's and Pearson's correlation of each relation with intervals; None without three runs."""
    rows = []
    for relation in relations(data):
        arms = [run.arm for run in relation.runs]
        spearman = correlation(relation.x, relation.y, clusters=arms)
        pearson = correlation(relation.x, relation.y, ranks=False, clusters=arms)
        within = correlation(relation.x, relation.y, groups=arms)
        rows.append([relation.shift, relation.loss, str(len(arms)), *map(_shown, (spearman, pearson, within))])
    head = ["shift", "text lost", "runs", "Spearman", "Pearson", "Spearman within arms"]
    return Table("Shift and text lost, over runs", head, rows, _NOTE) if rows else None


def _shown(found: Interval) -> str:
    return DASH if isnan(found.estimate) else interval(found, signed=True)


def correlation_figure(data: StudyData) -> go.Figure | None:
    """A scatter of each relation, one colour an arm."""
    ran = [run.arm for run in data.runs]
    # The arms of the other figures first: one that is not tested yet does not change their colours.
    arms = list(dict.fromkeys([*(arm.name for arm in data.trained if arm.name in ran), *ran]))
    return one_of({f"{r.loss} against {r.shift}": _scatter(r, arms) for r in relations(data)})


def _scatter(relation: Relation, arms: list[str]) -> go.Figure:
    drawn = blank(relation.shift, relation.loss)
    for arm in dict.fromkeys(run.arm for run in relation.runs):
        places = [place for place, run in enumerate(relation.runs) if run.arm == arm]
        drawn.add_scatter(
            x=[relation.x[place] for place in places],
            y=[relation.y[place] for place in places],
            text=[label(f"{relation.runs[place].variant}, seed {relation.runs[place].seed}") for place in places],
            hovertemplate="%{text}<br>%{x:.3g}, %{y:.3g}<extra></extra>",
            mode="markers",
            name=label(arm),
            marker=marker(arms.index(arm), 9),
        )
    drawn.update_yaxes(zeroline=True, zerolinecolor=NEUTRAL)
    return drawn

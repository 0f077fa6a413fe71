"""Shift of importance and loss of text for all runs of a study, including those at points not chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .study_data import StudyData
from .study_run import Pair, RunResult
from .tables.shift import loss_change, value_of

_SHIFTS = {"JS distance": "js", "log total ratio": "log_total_ratio"}


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
    """Pairs every shift with every text measure that was lost, for the first estimator."""
    for pair in data.leading_pairs:
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
    """Returns how much of a text measure a run lost; the probe's own loss is the held-out one."""
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

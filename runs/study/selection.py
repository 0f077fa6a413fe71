"""Chooses the point of an arm's grid that runs with the other seeds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..run import Run, holds_part
from .jobs import Job, job_of, points
from .spec import Arm, Study
from .state import StateStore

_ROUNDING = 1e-9  # for shares of items: 0.55 - 0.5 is slightly more than 0.05


def last_value(folder: Path, metric: str) -> float | None:
    """Returns the last value of a metric that a run logged; None if there is none or it is not a number."""
    if not holds_part(folder):
        return None
    value = Run.open(folder).metrics.last(metric)
    return value if value is not None and math.isfinite(value) else None


def scored_points(study: Study, arm: Arm, store: StateStore) -> list[tuple[dict[str, Any], float]]:
    """Lists the trained points of a grid with the metric of the first seed, best first; ties go to the first.

    If the selection names a second metric, the points close enough to the best come first, ordered by that metric;
    those without it come last among them.
    """
    rule = study.selection
    if rule is None:
        return []
    scored: list[tuple[dict[str, Any], float, Path]] = []
    for point in points(arm):
        job = job_of(study, arm, point, arm.seeds[0])
        value = last_value(job.directory, rule.metric)
        if store.read(job.name).fitted and value is not None:  # even while the chosen one is being tested
            scored.append((point, value, job.directory))
    best = (max if rule.mode == "max" else min)((value for _, value, _ in scored), default=math.nan)

    def place(entry: tuple[dict[str, Any], float, Path]) -> tuple[bool, float, float]:
        _, value, folder = entry
        behind = rule.gap(value, best)
        if rule.then is None or behind > rule.within + _ROUNDING:
            return rule.then is not None, 0.0, behind
        second = last_value(folder, rule.then.metric)
        return False, math.inf if second is None else rule.then.gap(second, 0.0), behind

    return [(point, value) for point, value, _ in sorted(scored, key=place)]


def choose(study: Study, arm: Arm, store: StateStore) -> tuple[list[Job], dict[str, Any]]:
    """Chooses an arm's point.

    Returns:
        All its seeds, to be tested; also the choice and the result of every point.
    """
    scored = scored_points(study, arm, store)
    record = {
        "chosen": scored[0][0] if scored else None,
        "points": [{"point": point, "value": value} for point, value in scored],
    }
    return [job_of(study, arm, scored[0][0], seed) for seed in arm.seeds] if scored else [], record

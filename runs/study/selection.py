"""Which point of an arm's grid goes on with the other seeds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..run import Run, holds_part
from .jobs import Job, job_of, points
from .spec import Arm, Study
from .state import StateStore


def last_value(folder: Path, metric: str) -> float | None:
    """Gives the last value of a metric that a run logged; None if there is none or it is no number."""
    if not holds_part(folder):
        return None
    value = Run.open(folder).metrics.last(metric)
    return value if value is not None and math.isfinite(value) else None


def scored_points(study: Study, arm: Arm, store: StateStore) -> list[tuple[dict[str, Any], float]]:
    """Lists the trained points of a grid with the metric of the first seed, best first; the first of equals wins."""
    if study.selection is None:
        return []
    scored = []
    for point in points(arm):
        job = job_of(study, arm, point, arm.seeds[0])
        value = last_value(job.directory, study.selection.metric)
        if store.read(job.name).fitted and value is not None:  # also while the one that was taken is being tested
            scored.append((point, value))
    sign = -1 if study.selection.mode == "max" else 1
    return sorted(scored, key=lambda entry: sign * entry[1])


def choose(study: Study, arm: Arm, store: StateStore) -> tuple[list[Job], dict[str, Any]]:
    """Chooses an arm's point.

    Returns:
        All seeds of it, to be tested; and what was chosen and what every point reached.
    """
    scored = scored_points(study, arm, store)
    record = {
        "chosen": scored[0][0] if scored else None,
        "points": [{"point": point, "value": value} for point, value in scored],
    }
    return [job_of(study, arm, scored[0][0], seed) for seed in arm.seeds] if scored else [], record

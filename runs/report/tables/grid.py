"""Which points of the grids were run, what they reached and kept, and which was chosen."""

from __future__ import annotations

from ...study.jobs import chooses, job_of, points
from ...study.spec import UNTOUCHED
from ..estimates import difference, shown
from ..study_data import StudyData
from ..study_run import MAIN, Measure, RunResult
from .table import DASH, Table


def grid_table(data: StudyData) -> Table | None:
    """Lists the planned points with their metric and the text they kept; None if nothing is chosen."""
    selection = data.study.selection
    if selection is None:
        return None
    states = {job.name: state for job, state in data.states}
    runs = {(run.variant, run.seed): run for run in data.runs}
    measures = _measures_of_fits(data)
    rows = []
    for arm in data.study.arms:
        if not chooses(data.study, arm):
            continue
        scored = data.grids.get(arm.name, [])
        for point in points(arm):
            job = job_of(data.study, arm, point, arm.seeds[0])
            value = next((value for known, value in scored if known == point), None)
            if scored and point == scored[0][0]:
                mark = "taken"
            elif value is None:
                mark = states[job.name].status if states[job.name].status != "finished" else "metric missing"
            else:
                mark = ""
            settings = ", ".join(f"{key} = {setting}" for key, setting in point.items())
            run = runs.get((job.variant, job.seed))
            kept = [_change(data, run, measure) for measure in measures]
            rows.append([arm.name, settings, DASH if value is None else f"{value:.4g}", mark, *kept])
    head = ["arm", "point", selection.words, ""]
    head += [f"{measure.label}, against {UNTOUCHED}" for measure in measures]
    note = "Of each arm's first seed, on validation, at the end of the run; the best one runs with the other seeds."
    if measures:
        note += (
            f" Against {UNTOUCHED}: on the items that both have, in points (% right) or nats per token; in brackets "
            "95 % intervals over items; they say nothing about other seeds."
        )
    return Table("Points of the grids", head, rows, note) if rows else None


def _measures_of_fits(data: StudyData) -> list[Measure]:
    """Lists the text measures that need no test, so that points not chosen have them too."""
    known = data.untouched.scores if data.untouched else {}
    found = {measure for run in data.runs if not run.tested for measure in run.scores if measure in known}
    return sorted((m for m in found if m.set != MAIN and m.modality == "text"), key=lambda m: (m.set, m.kind))


def _change(data: StudyData, run: RunResult | None, measure: Measure) -> str:
    if run is None or data.untouched is None or measure not in run.scores:
        return DASH
    found = difference({0: run.scores[measure]}, {0: data.untouched.scores[measure]}, measure)
    return shown(measure, found, signed=True)

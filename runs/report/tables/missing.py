"""Which runs of a study are missing."""

from __future__ import annotations

from ...study.spec import UNTOUCHED
from ..study_data import StudyData
from .table import DASH, Table


def missing_table(data: StudyData) -> Table | None:
    """Lists the planned runs that are not finished; None if there are none."""
    rows = [
        [job.name, "not tested" if state.status == "finished" else state.status, state.error or DASH]
        for job, state in data.states
        if not state.done(job.test) and not (job.arm == UNTOUCHED and data.untouched)
    ]
    note = "textkeep study runs what is left of its plan."
    return Table("Runs that are missing", ["run", "state", "error"], rows, note) if rows else None

"""A study on this machine: one run after another."""

from __future__ import annotations

from collections.abc import Sequence

from .child import run_job
from .jobs import Job
from .progress import Progress
from .spec import Study
from .state import StateStore
from .stopping import Stop


def run_locally(study: Study, jobs: Sequence[Job], store: StateStore, progress: Progress, stop: Stop) -> None:
    """Runs jobs in order; one that fails does not stop the others.

    Raises:
        StudyInterrupted: If this process was asked to stop.
    """
    for job in jobs:
        with store.changing(job.name) as state:
            state.submission = state.task = ""  # no task that SLURM may still have may take it over now
        progress.begin(job, resumed=store.read(job.name).attempts > 0)
        progress.end(run_job(study, job, store, stop, progress.tick))

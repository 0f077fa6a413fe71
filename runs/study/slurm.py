"""A study as a SLURM array: one task a run, through submitit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...foundation.errors import UserError
from .child import run_job
from .jobs import Job
from .progress import Progress
from .spec import Study
from .state import StateStore

POLL_SECONDS = 5.0


class ArrayTask:
    """What a task of the array does. SLURM may start it again: it goes on from the last checkpoint."""

    def __call__(self, study: Study, job: Job) -> str:
        """Runs a job; returns its status."""
        return run_job(study, job, StateStore(study.directory)).status

    def checkpoint(self, study: Study, job: Job) -> Any:
        """Submits the same again; submitit asks for it when the time is over."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, study, job)


def run_on_slurm(
    study: Study,
    jobs: Sequence[Job],
    store: StateStore,
    progress: Progress,
    parameters: Mapping[str, Any],
    cluster: str = "slurm",
) -> None:
    """Submits an array and waits for it; its states are written by the tasks, on the shared file system.

    Args:
        study: The plan.
        jobs: The runs, in order.
        store: Of their states.
        progress: Is told of those that end.
        parameters: Of submitit's ``AutoExecutor.update_parameters`` (``timeout_min``, ``slurm_partition``, ...).
        cluster: submitit's name of the cluster; ``local`` runs the tasks as processes here.

    Raises:
        UserError: If submitit is missing, there is no SLURM here, or a parameter is unknown.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError("study: slurm needs submitit: pip install 'textkeep[slurm]'") from error
    try:
        executor = submitit.AutoExecutor(folder=Path(study.directory, "slurm"), cluster=cluster)
        executor.update_parameters(name=f"study-{study.directory.name}", **parameters)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"study: slurm: {' '.join(str(error).split())}") from error
    tasks = executor.map_array(ArrayTask(), [study] * len(jobs), list(jobs))
    print(f"submitted {len(tasks)} tasks: {tasks[0].job_id} ...; logs: {Path(study.directory, 'slurm')}", flush=True)
    waiting = list(zip(jobs, tasks, strict=True))
    while waiting:
        still = []
        for job, task in waiting:
            if not task.done():
                still.append((job, task))
                continue
            state = store.read(job.name)
            if state.status not in ("finished", "failed"):  # the task died before it could say so
                state.status, state.error = "failed", f"task {task.job_id} ended as {task.state}"
                state.log = str(Path(task.paths.stderr).resolve().relative_to(study.directory.resolve()))
                store.write(state)
            progress.told(job, state)
        waiting = still
        if waiting:
            time.sleep(POLL_SECONDS if cluster == "slurm" else 0.2)

"""A task of a study's SLURM array: one run, and its response to SLURM's signals."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...foundation.errors import TERMINATED
from .child import run_job
from .jobs import Job
from .spec import Study
from .squeue import Squeue
from .state import StateStore
from .stopping import Stop, StudyInterrupted

SUPERSEDED = "superseded"
"""The result of a task whose run was given to another task before it started."""

_TIME_IS_OVER = (signal.SIGUSR1, signal.SIGUSR2)
"""One of these is submitit's."""


class ArrayTask:
    """The work of an array task. SLURM may restart it: it continues from the last checkpoint.

    Args:
        submission: Mark of the array.
        patience: Seconds that training has to save after the signal, before SLURM ends everything.
    """

    def __init__(self, submission: str, patience: float) -> None:
        self.submission = submission
        self.patience = patience

    def __call__(self, study: Study, job: Job) -> str:
        """Runs a job.

        Returns:
            Its status; the state on disk is what others wait for.

        Raises:
            SystemExit: If SLURM ends the task or requeues it: then it has no result.
        """
        import submitit

        store = StateStore(study.directory)
        number = submitit.JobEnvironment().job_id
        with store.changing(job.name) as state:
            if state.submission != self.submission:
                print(f"{job.name} was submitted again: task {number} leaves it alone", flush=True)
                return SUPERSEDED
            state.task = number
        again = {number: handler for number in _TIME_IS_OVER if callable(handler := signal.getsignal(number))}
        # SIGTERM goes to every process of the task: a second one from here could interrupt the child's shutdown.
        stop = Stop({signal.SIGTERM: None, **dict.fromkeys(again, signal.SIGTERM)}, apart=False, patience=self.patience)
        with stop.listening():
            try:
                return run_job(study, job, store, stop).status
            except StudyInterrupted:
                if any(number in again for number in stop.noted) or _preempted(study.directory, number):
                    _submit_again(next(iter(again.items())), store, job)
                raise SystemExit(TERMINATED) from None

    def checkpoint(self, study: Study, job: Job) -> Any:
        """Requeues the same task through submitit when its time is over; training has saved by then."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, study, job)


def _preempted(directory: Path, number: str) -> bool:
    """Returns whether SLURM has preempted a task and will not itself restart it once it has ended.

    A cancelled or requeued job is in another state by the time of its SIGTERM; one with a grace period still runs.
    """
    return (Squeue(directory).ask() or {}).get(number) == "RUNNING"


def _submit_again(handler: tuple[signal.Signals, Callable[..., Any]], store: StateStore, job: Job) -> None:
    """Lets submitit count and requeue, which ends the process. If that fails, the run ends and the reason is shown."""
    try:
        handler[1](handler[0], None)
    except Exception as error:  # timed out too often, or SLURM refuses
        with store.changing(job.name) as state:
            state.status, state.error = "failed", " ".join(str(error).split())

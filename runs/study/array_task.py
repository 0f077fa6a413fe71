"""What a task of a study's SLURM array does: one run, and what the signals of SLURM mean for it."""

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
"""What a task gives back whose run was given to another task before it began."""

_TIME_IS_OVER = (signal.SIGUSR1, signal.SIGUSR2)
"""One of them is submitit's."""


class ArrayTask:
    """What a task of the array does. SLURM may restart it: it continues from the last checkpoint.

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
            Its status; what stays for whoever waits for the task is its state on disk.

        Raises:
            SystemExit: If SLURM ends the task, or submits it again: it has no result then.
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
        # SIGTERM goes to every process of the task: a second one from here could meet the child's last words.
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
    """Returns whether SLURM has asked a task to make room and would not start it again by itself, once it has ended.

    A job that is cancelled or requeued is in another state by the time of its SIGTERM; one that has a time of grace
    still runs.
    """
    return (Squeue(directory).ask() or {}).get(number) == "RUNNING"


def _submit_again(handler: tuple[signal.Signals, Callable[..., Any]], store: StateStore, job: Job) -> None:
    """Lets submitit count and requeue; it ends the process then. What hinders it ends the run, and is said."""
    try:
        handler[1](handler[0], None)
    except Exception as error:  # timed out too often, or SLURM refuses
        with store.changing(job.name) as state:
            state.status, state.error = "failed", " ".join(str(error).split())

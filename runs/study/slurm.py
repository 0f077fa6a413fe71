"""A study as a SLURM array: one task per run, submitted through submitit and awaited as long as SLURM knows it."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...foundation.errors import UserError
from .array_task import ArrayTask
from .jobs import Job
from .progress import Progress
from .spec import Study
from .squeue import Squeue, is_over, task_name
from .state import JobState, StateStore
from .stopping import OWN_CHILD, Stop, StudyInterrupted, blocked

POLL_SECONDS = 5.0
LONGEST_POLL_SECONDS = 30.0
FORGOTTEN_SECONDS = 15.0
"""Time that a task may be missing from SLURM before it counts as gone: its state may still be in transit."""

TIMEOUTS = 20
"""How often a timed-out task is resubmitted if the plan does not say so; submitit's own default is 3."""


def run_on_slurm(study: Study, jobs: Sequence[Job], store: StateStore, progress: Progress, stop: Stop) -> None:
    """Submits the runs without a task, and waits for all; the tasks write their states.

    Args:
        study: The plan.
        jobs: The runs, in order.
        store: Of their states, on a file system that the tasks share.
        progress: Is notified of those that end.
        stop: What this process is asked.

    Raises:
        StudyInterrupted: If this process was asked to stop waiting; the tasks go on.
        UserError: If submitit is missing, there is no SLURM here, or a parameter is unknown.
    """
    executor = _executor(study)
    squeue = Squeue(study.directory)
    live = _live(squeue, stop)
    left = [(job, store.read(job.name).task) for job in jobs]
    left = [(job, task) for job, task in left if task not in live]
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} runs have tasks of an earlier start: they are waited for", flush=True)
    if left:
        _submit(study, left, store, executor)
    _wait(study, jobs, store, progress, squeue, stop)


def check_free(study: Study, jobs: Sequence[Job], store: StateStore) -> None:
    """Refuses to run locally what a SLURM task is running.

    Raises:
        UserError: If a task has one of the runs, or SLURM does not answer.
    """
    tasks = {job.name: task for job in jobs if (task := store.read(job.name).task)}
    if not tasks or shutil.which("squeue") is None:  # states may come from a remote cluster
        return
    if (known := Squeue(study.directory).ask()) is None:
        raise UserError(
            "study: --local: SLURM does not answer whether it has tasks of this study; allowed: once it does"
        )
    for name, task in tasks.items():
        if not is_over(known.get(task, "")):
            raise UserError(
                f"study: --local: {name} is task {task} of SLURM, {known[task]} (allowed: textkeep study without "
                f"--local, which waits for it, or after scancel {task})"
            )


def _executor(study: Study) -> Any:
    """Returns submitit's executor with the plan's parameters."""
    try:
        import submitit
    except ImportError as error:
        raise UserError("study: slurm needs submitit: pip install 'textkeep[slurm]'") from error
    given = dict(study.slurm or {})
    for name in ("nodes", "tasks_per_node", "slurm_nodes", "slurm_ntasks_per_node"):
        if given.get(name, 1) != 1:
            raise UserError(
                f"study: slurm: {name}: {given[name]} (allowed: 1; a run is one task on one node, and with "
                "trainer.devices it starts its other processes itself)"
            )
    timeouts = given.pop("slurm_max_num_timeout", TIMEOUTS)
    given["slurm_additional_parameters"] = {"requeue": True, **given.get("slurm_additional_parameters", {})}
    try:
        executor = submitit.AutoExecutor(
            folder=Path(study.directory, "slurm"), cluster="slurm", slurm_max_num_timeout=timeouts
        )
        executor.update_parameters(name=task_name(study.directory), **given)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"study: slurm: {' '.join(str(error).split())}") from error
    return executor


def _live(squeue: Squeue, stop: Stop) -> Mapping[str, str]:
    """Returns the waiting and running tasks as soon as SLURM answers."""
    while (known := squeue.ask()) is None:
        stop.wait(POLL_SECONDS)
        if stop.asked:
            raise StudyInterrupted
    return {number: state for number, state in known.items() if not is_over(state)}


def _submit(study: Study, left: Sequence[tuple[Job, str]], store: StateStore, executor: Any) -> None:
    """Submits an array. Its mark is written to the states beforehand, so that only its own tasks take their runs.

    Args:
        study: The plan.
        left: The runs, with their tasks at the time of checking whether these are over.
        store: Of their states.
        executor: Of submitit.
    """
    submission = secrets.token_hex(8)
    given = []
    for job, former in left:
        with store.changing(job.name) as state:
            if state.task != former:
                continue  # a task of a killed start has just begun
            state.submission, state.task, state.status, state.error = submission, "", "pending", ""
            given.append(job)
    if not given:
        return
    delay = (study.slurm or {}).get("slurm_signal_delay_s", 90)
    task = ArrayTask(submission, patience=max(delay - 30, delay / 2))
    try:
        with blocked(*OWN_CHILD):  # Ctrl-C must not come between sbatch and its answer
            tasks = executor.map_array(task, [study] * len(given), given)
    except RuntimeError as error:
        raise UserError(f"study: slurm: {' '.join(str(error).split())}") from error
    for job, made in zip(given, tasks, strict=True):
        with store.changing(job.name) as state:
            state.task = state.task or made.job_id  # the task itself may have been faster, and may be over
    print(f"submitted {len(tasks)} tasks: {tasks[0].job_id} ...; logs: {Path(study.directory, 'slurm')}", flush=True)


def _wait(study: Study, jobs: Sequence[Job], store: StateStore, progress: Progress, squeue: Squeue, stop: Stop) -> None:
    """Waits until no run has a task any more."""
    waiting = list(jobs)
    gone: dict[str, float] = {}
    pause = POLL_SECONDS
    while True:
        known = squeue.ask()
        states = {job.name: store.read(job.name) for job in waiting}
        ended = [job for job in waiting if _is_over(states[job.name], known, gone)]
        for job in ended:
            progress.told(job, _conclude(study, job, store, known or {}))
        waiting = [job for job in waiting if job not in ended]
        if not waiting:
            return
        progress.tasks([(states[job.name], (known or {}).get(states[job.name].task, "")) for job in waiting])
        if stop.asked:
            raise StudyInterrupted(_farewell([states[job.name].task for job in waiting]))
        pause = POLL_SECONDS if ended else min(LONGEST_POLL_SECONDS, pause * 1.05)
        stop.wait(pause)


def _is_over(state: JobState, known: Mapping[str, str] | None, gone: dict[str, float]) -> bool:
    """Returns whether a run's task is over for good.

    That is so for a finished run; any other task may be requeued, and is then pending as long as SLURM knows it.

    Args:
        state: The run's.
        known: SLURM's states of the tasks; None if it does not answer.
        gone: Name of a run -> since when its task has been missing; updated here.
    """
    if state.status == "finished":
        return True
    if known is None or not is_over(known.get(state.task, "")):
        gone.pop(state.job, None)
        return False
    since = gone.setdefault(state.job, time.monotonic())
    return state.status == "failed" or time.monotonic() - since >= FORGOTTEN_SECONDS


def _conclude(study: Study, job: Job, store: StateStore, known: Mapping[str, str]) -> JobState:
    """Records what ended a task that could not report it itself."""
    with store.changing(job.name) as state:
        if state.status in ("finished", "failed"):
            return state
        how = known.get(state.task) or "unknown to SLURM"
        state.status = "interrupted" if how == "CANCELLED" else "failed"
        state.error = f"task {state.task} ended: {how}"
        state.log = state.log or str(Path("slurm", f"{state.task}_0_log.err"))
    return state


def _farewell(tasks: Sequence[str]) -> str:
    arrays = sorted({task.split("_")[0] for task in tasks if task}, key=int)
    return f"the tasks continue: {' '.join(tasks)}; scancel {' '.join(arrays)} ends them"

"""One run of a study: child processes for training and test, their state on disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...foundation.errors import INTERRUPTED, TERMINATED, UserError
from ...foundation.processes import began
from ...foundation.run_names import lock_name, newest_checkpoint
from ..belonging import finished_step, holds_run
from ..launch import Launch
from ..run_lock import RunLock
from .jobs import Job, fit_command, test_command
from .spec import UNTOUCHED, Study
from .state import JobState, StateStore
from .stopping import Stop, StudyInterrupted, blocked

POLL_SECONDS = 0.5
ENDING_SECONDS = 120.0
"""Time that the child of an earlier start has to save and end; a hanging one is then killed."""
SHARED_SERVICE = "WANDB_SERVICE"
"""With it, a child would use the W&B service of the process that started the study, where a finished run is still in
use when its test resumes it."""
SLURM = "SLURM_"
"""Prefixes of the variables that tell a process that SLURM started it. The study is that process: a child that read
them would take the task for its own launch, and requeue the job itself."""
OF_JOB = {"SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"}
"""Those that only identify the job: a run's directory uses them to recognise an earlier attempt of the same job."""
_STOPPED = {INTERRUPTED, TERMINATED, -signal.SIGINT, -signal.SIGTERM}


def run_job(study: Study, job: Job, store: StateStore, stop: Stop, tick: Callable[[], None] = lambda: None) -> JobState:
    """Runs a job to the end, from where an earlier attempt stopped.

    Args:
        study: The plan.
        job: The run.
        store: Receives its state.
        stop: Signals that this process received.
        tick: Called now and then while a child runs.

    Returns:
        The final state, ``finished`` or ``failed``.

    Raises:
        StudyInterrupted: If this process was asked to stop; the child has saved a checkpoint, as the state shows.
    """
    if stop.asked:
        raise StudyInterrupted
    state = store.read(job.name)
    _end_former(state, stop)
    log = study.directory / "logs" / f"{job.name}.log"
    state.status, state.error = "running", ""
    state.directory, state.log = (str(path.relative_to(study.directory)) for path in (job.directory, log))
    if job.test and newest_checkpoint(job.directory) is None:
        state.fitted = False  # the test needs the checkpoint, which stayed on another machine
    state.attempts += 1
    started, before = time.monotonic(), state.seconds

    def keep() -> None:
        state.seconds = before + time.monotonic() - started
        store.write(state)

    try:
        for command in _commands(study, job, state):
            if stop.asked:
                raise StudyInterrupted
            code = _run(command, log, stop, tick, lambda child: _note_child(state, child, keep))
            state.pid, state.fitted = 0, state.fitted or (code == 0 and "fit" in command)
            keep()
            if code and (stop.asked or code in _STOPPED):
                raise StudyInterrupted
            if code:
                state.status, state.error = "failed", _last_words(log, code)
                break
        else:
            state.status, state.tested = "finished", job.test
    except StudyInterrupted:
        state.status = "interrupted"
        raise
    except UserError as error:
        state.status, state.error = "failed", str(error)
    finally:
        keep()
    return state


def _end_former(state: JobState, stop: Stop) -> None:
    """Ends the orphaned child of a killed study; it saves a checkpoint first."""
    if not _child_lives(state):
        return
    print(
        f"{state.job}: process {state.pid} of an earlier start still runs: it saves a checkpoint and ends", flush=True
    )
    os.kill(state.pid, signal.SIGTERM)
    end = time.monotonic() + ENDING_SECONDS
    while _child_lives(state):
        if time.monotonic() > end:
            os.kill(state.pid, signal.SIGKILL)
        stop.wait(POLL_SECONDS)
        if stop.asked:
            raise StudyInterrupted


def child_of(state: JobState) -> str:
    """Returns which process of this machine trains or tests a run; empty if none does."""
    return f"process {state.pid}" if _child_lives(state) else ""


def _child_lives(state: JobState) -> bool:
    return bool(state.pid) and state.host == socket.gethostname() and began(state.pid) == state.began


def _note_child(state: JobState, child: subprocess.Popen[bytes], keep: Callable[[], None]) -> None:
    state.host, state.pid, state.began = socket.gethostname(), child.pid, began(child.pid) or ""
    keep()


def _commands(study: Study, job: Job, state: JobState) -> list[list[str]]:
    """Lists what is left to do."""
    if job.arm == UNTOUCHED:
        _clear(job.directory, "test")  # a new one would get another name
        return [test_command(study, job)]
    commands = []
    if not state.fitted:
        if finished_step(job.directory) is not None and newest_checkpoint(job.directory) is None:
            _clear(job.directory, "fit")  # its checkpoints stayed on another machine: there is nothing to continue from
        commands.append(fit_command(study, job, resume=holds_run(job.directory)))
    return [*commands, test_command(study, job)] if job.test else commands


def _clear(directory: Path, verb: str) -> None:
    """Removes a run directory.

    Raises:
        UserError: If another process writes there.
    """
    if directory.is_dir():
        lock = RunLock(directory / lock_name(verb), Launch.of())
        lock.acquire()
        shutil.rmtree(directory)
        lock.release()


def _run(
    command: Sequence[str],
    log: Path,
    stop: Stop,
    tick: Callable[[], None],
    note: Callable[[subprocess.Popen[bytes]], None],
) -> int:
    """Runs a child; signals to this process reach it through ``stop``, once."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as output, blocked(signal.SIGUSR1, signal.SIGUSR2):
        # The end of a task's time is signalled to every process in it: the study must respond, and it would kill the
        # child.
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=stop.apart,
            env={name: value for name, value in os.environ.items() if _handed_down(name)},
        )
    try:
        note(child)
        while True:
            stop.pass_on(child)
            tick()
            try:
                return child.wait(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if stop.overdue:
                    child.kill()
    except BaseException:  # a closed terminal or a full disk: a child that nobody waits for would run on alone
        child.terminate()
        child.wait()
        raise


def _handed_down(variable: str) -> bool:
    return variable != SHARED_SERVICE and (variable in OF_JOB or not variable.startswith(SLURM))


def _last_words(log: Path, code: int) -> str:
    """Returns the child's error in one line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("textkeep: error:")]
    return (said or lines or [""])[-1][:300] + f" (exit code {code})"

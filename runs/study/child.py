"""One run of a study: child processes for training and test, their state on disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...foundation.errors import INTERRUPTED, TERMINATED
from ...foundation.run_names import newest_checkpoint
from .jobs import Job, fit_command, test_command
from .spec import UNTOUCHED, Study
from .state import JobState, StateStore

POLL_SECONDS = 0.5
SHARED_SERVICE = "WANDB_SERVICE"
"""With it a child would use the W&B service of whoever started the study: there a run that has ended is still in use
when its test goes on with it."""
_STOPPED = {INTERRUPTED, TERMINATED, -signal.SIGINT, -signal.SIGTERM}


class StudyInterrupted(Exception):  # noqa: N818 - a request, no error
    """The user or the system asked to stop."""


def run_job(study: Study, job: Job, store: StateStore, tick: Callable[[], None] = lambda: None) -> JobState:
    """Runs a job to its end, from where an earlier attempt stopped.

    Args:
        study: The plan.
        job: The run.
        store: Gets its state.
        tick: Called now and then while a child runs.

    Returns:
        The final state, ``finished`` or ``failed``.

    Raises:
        StudyInterrupted: If this process was asked to stop; the child has saved a checkpoint, the state says so.
    """
    state = store.read(job.name)
    log = study.directory / "logs" / f"{job.name}.log"
    state.status, state.error = "running", ""
    state.directory, state.log = (str(path.relative_to(study.directory)) for path in (job.directory, log))
    if job.test and newest_checkpoint(job.directory) is None:
        state.fitted = False  # the test needs the checkpoint, and that stayed on another machine
    state.attempts += 1
    store.write(state)
    started, before = time.monotonic(), state.seconds
    try:
        for command in _commands(study, job, state):
            code = _run(command, log, tick)
            state.seconds = before + time.monotonic() - started
            if code:
                state.status, state.error = "failed", _last_words(log, code)
                break
            if "fit" in command:
                state.fitted = True
                store.write(state)
        else:
            state.status, state.tested = "finished", job.test
    except StudyInterrupted:
        state.status = "interrupted"
        raise
    finally:
        state.seconds = before + time.monotonic() - started
        store.write(state)
    return state


def _commands(study: Study, job: Job, state: JobState) -> list[list[str]]:
    """Lists what is left to do."""
    if job.arm == UNTOUCHED:
        shutil.rmtree(job.directory, ignore_errors=True)  # a new one would get another name
        return [test_command(study, job)]
    commands = []
    if not state.fitted:
        resume = newest_checkpoint(job.directory) is not None
        if not resume:  # an attempt that left no checkpoint left nothing
            shutil.rmtree(job.directory, ignore_errors=True)
        commands.append(fit_command(study, job, resume))
    return [*commands, test_command(study, job)] if job.test else commands


def _run(command: Sequence[str], log: Path, tick: Callable[[], None]) -> int:
    """Runs a child in a session of its own: Ctrl-C reaches it through us, once."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != SHARED_SERVICE},
        )
        asked = False
        while True:
            try:
                tick()
                code = child.wait(timeout=POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:  # the first lets it save a checkpoint, a second ends it
                child.send_signal(signal.SIGINT)
                asked = True
            except SystemExit:  # SIGTERM
                child.terminate()
                asked = True
    if asked or code in _STOPPED:
        raise StudyInterrupted
    return code


def _last_words(log: Path, code: int) -> str:
    """Gives the child's error in one line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("textkeep: error:")]
    return (said or lines or [""])[-1][:300] + f" (exit code {code})"

"""How a run is started and killed: real processes in their own group, and moments drawn over the duration of a run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .forking import ForkedProcess
from .timeline import VARIABLE, Event, read_timeline

ROOT = Path(__file__).resolve().parents[2]
POLL = 0.002
PATIENCE = 600.0
"""Seconds after which an attempt counts as hung."""


Running = subprocess.Popen[bytes] | ForkedProcess


class HungError(Exception):
    """An attempt that neither ended nor progressed."""


@dataclass(frozen=True)
class Launch:
    """A command that starts or continues a run.

    Attributes:
        words: The command line.
        environment: Additional environment variables.
        log: File that its output is appended to.
        fork: Whether it starts as a fork of this process.
    """

    words: Sequence[str]
    environment: dict[str, str]
    log: Path
    fork: bool = False

    def start(self) -> Running:
        """Starts it in its own session, so that a signal to the group reaches all its processes."""
        if self.fork:
            return ForkedProcess(self.words[2:], {**_environment(), **self.environment}, self.log)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.words,
                env={**_environment(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@dataclass(frozen=True)
class Moment:
    """When to kill: a while after a place in the run, or a while after its start.

    Attributes:
        event: The place; None for the start of the process.
        delay: Seconds.
    """

    event: Event | None
    delay: float

    def __str__(self) -> str:
        place = f"{self.event.name} of batch {self.event.batches}" if self.event else "start"
        return f"{place} + {self.delay:.3f} s"


def fit_command(config: Path, directory: Path, *more: str) -> list[str]:
    """Returns the command line of ``textkeep fit``."""
    program = [sys.executable, str(Path(sys.executable).with_name("textkeep")), "fit", "--config", str(config)]
    return [*program, "--trainer.default_root_dir", str(directory), *more]


def draw_moment(reference: Sequence[Event], after: int, share: float, rng: random.Random) -> Moment:
    """Draws a moment uniformly over the duration of such a run, from a given place on.

    Args:
        reference: What an uninterrupted run did, with times.
        after: Training batches after which the attempt continues.
        share: Mean fraction of the whole duration to let it run.
        rng: Draws.
    """
    whole = reference[-1].at - reference[0].at
    first = next((i for i, event in enumerate(reference) if event.batches >= after), len(reference) - 1)
    at = rng.uniform(reference[first].at, min(reference[first].at + 2.0 * share * whole, reference[-1].at))
    last = max(first, max(i for i, event in enumerate(reference) if event.at <= at))
    return Moment(reference[last], max(0.0, at - reference[last].at))


def kill_at(process: Running, moment: Moment, number: signal.Signals, timeline: Path) -> bool:
    """Lets a run reach a moment and signals its whole process group.

    Args:
        process: The leader of the group.
        moment: When.
        number: The signal. After any other than SIGKILL, the run may end in its own way.
        timeline: File that the run writes; it is read from its current end on.

    Returns:
        Whether the run was still there to be killed.

    Raises:
        HungError: If it neither got there nor ended.
    """
    read = timeline.stat().st_size if timeline.is_file() else 0
    started = time.monotonic()
    delay = moment.delay
    while process.poll() is None:
        events, read = read_timeline(timeline, read)
        if moment.event is None and (events or time.monotonic() - started > moment.delay):
            delay = 0.0  # a process that starts sooner than the undisturbed one must not run past the moment
            break
        if moment.event is not None and any(reached(event, moment.event) for event in events):
            break
        if time.monotonic() - started > PATIENCE:
            _signal_group(process, signal.SIGKILL)
            raise HungError(f"the run did not come to {moment}")
        time.sleep(POLL)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        _signal_group(process, number)
    else:
        return False
    wait_for_group(process)
    return True


def wait_for_group(process: Running) -> int:
    """Waits until a run and all its child processes have ended.

    Returns:
        Its exit code.

    Raises:
        HungError: If it did not end in time; it is then killed.
    """
    limit = time.monotonic() + PATIENCE
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        raise HungError(f"the run did not end within {PATIENCE:.0f} s") from None
    while _signal_group(process, 0):
        if time.monotonic() > limit:
            _signal_group(process, signal.SIGKILL)
            raise HungError("a process that the run started did not end")
        time.sleep(POLL)
    return code


def reached(event: Event, wanted: Event) -> bool:
    """Returns whether a run has reached or passed a place."""
    return event.batches > wanted.batches or (event.batches == wanted.batches and event.name == wanted.name)


def _signal_group(process: Running, number: int) -> bool:
    """Signals the group; False if it no longer exists."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _environment() -> dict[str, str]:
    """Returns an environment with one thread and no network, in which the timeline's callback is importable."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TEXTKEEP_", "SLURM_", VARIABLE))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return {**kept, **own}

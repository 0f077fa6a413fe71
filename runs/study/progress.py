"""The progress of a study, and the time it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..run import Run, holds_part
from .jobs import Job
from .state import JobState


def duration(seconds: float) -> str:
    """Formats a time for people: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def part_done(folder: Path) -> float | None:
    """Returns the completed fraction of a run's steps; None if unknown."""
    if not holds_part(folder):
        return None
    run = Run.open(folder)
    step = run.metrics.last_step
    return min(1.0, step / run.planned_steps) if step and run.planned_steps else None


def _first(names: Sequence[str], most: int = 6) -> str:
    """Lists some names, and the number of further ones."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class Progress:
    """Prints a line at the start and end of each run and, on a terminal, a live line.

    Args:
        total: Runs in all.
        directory: Of the study, to which the states' paths are relative.
    """

    def __init__(self, total: int, directory: Path = Path()) -> None:
        self.total, self.directory = total, directory
        self.done = 0
        self._times: list[float] = []
        self._job: Job | None = None
        self._started = 0.0
        self._status: Any = None
        self._told = 0.0
        self._tasks = ""

    def skip(self, finished: int) -> None:
        """Counts previously finished runs."""
        self.done += finished

    def begin(self, job: Job, resumed: bool) -> None:
        """Announces the start of a run."""
        self._job, self._started = job, time.monotonic()
        print(f"[{self.done + 1}/{self.total}] {job.name}: {'continuing' if resumed else 'running'}", flush=True)
        if sys.stdout.isatty():
            from rich.console import Console

            self._status = Console().status("")
            self._status.start()

    def tick(self) -> None:
        """Updates the live line as time passes."""
        if self._status is None or self._job is None or time.monotonic() - self._told < 2:
            return
        self._told = time.monotonic()
        part = part_done(self._job.directory)
        known = "" if part is None else f"{part:.0%} of its steps, "
        self._status.update(f"{self._job.name}: {known}{self.left(part)}")

    def end(self, state: JobState) -> None:
        """Reports the end of a run."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        taken = time.monotonic() - self._started
        self.done += 1
        if state.status == "finished":
            self._times.append(taken)
            print(f"    finished in {duration(taken)}; {self.left()}", flush=True)
        else:
            log = self.directory / state.log
            word = "interrupted" if state.status == "interrupted" else "failed"
            print(f"    {word} after {duration(taken)}: {state.error}; log: {log}", flush=True)

    def told(self, job: Job, state: JobState) -> None:
        """Reports the end of a run elsewhere."""
        self._job, self._started = job, time.monotonic() - state.seconds
        print(f"[{self.done + 1}/{self.total}] {job.name}", flush=True)
        self.end(state)

    def tasks(self, tasks: Sequence[tuple[JobState, str]]) -> None:
        """Reports, on changes, which tasks SLURM is running and which are waiting.

        Args:
            tasks: The runs' states, and SLURM's states of their tasks; empty if unknown.
        """
        running = [f"{state.job} ({state.task})" for state, told in tasks if told == "RUNNING"]
        others = [f"{state.job} ({state.task} {told or 'unknown'})" for state, told in tasks if told != "RUNNING"]
        named = [("running", running), ("waiting", others)]
        line = "; ".join(f"{word}: {_first(names)}" for word, names in named if names)
        if line != self._tasks:
            self._tasks = line
            print(line, flush=True)

    def left(self, part: float | None = None) -> str:
        """Estimates the time left from this session's finished runs, or from the progress of the current one."""
        remaining = self.total - self.done
        if self._times:
            mean = sum(self._times) / len(self._times)
            gone = 0.0 if self._job is None or part is None else part * mean
            return f"about {duration(max(0.0, remaining * mean - gone))} left"
        if part:
            mean = (time.monotonic() - self._started) / part
            return f"about {duration(mean * (remaining - part))} left"
        return f"{remaining} runs left" if remaining else "none left"

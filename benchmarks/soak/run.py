"""The two runs: one left alone and one that is killed."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from textkeep.foundation.run_names import newest_checkpoint

from .killing import Launch, Moment, Running, draw_moment, fit_command, kill_at, wait_for_group
from .timeline import VARIABLE, Event, read_timeline
from .tiny_run import write_tiny_run

EARLY = 0.1
"""Fraction of the kills that come before training begins, while a process imports, loads and restores."""
INTERRUPTED = {130, 143, -signal.SIGINT, -signal.SIGTERM}
"""Exit codes of an attempt that was asked to end."""


@dataclass
class Telling:
    """What happened to the run that was killed.

    Attributes:
        kills: Moments at which it was killed.
        codes: Exit code of each attempt.
        seconds: Of all attempts together.
    """

    kills: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """Returns the facts for a record of the trial."""
        return {"moments": self.kills, "codes": self.codes, "seconds": round(self.seconds, 1)}


class Soak:
    """One trial in its own folder.

    Args:
        folder: For models, data and both run directories.
        steps: Optimizer steps of the run.
        workers: Processes that read, per rank.
        processes: Ranks of DDP.
        fork: Whether attempts start as a fork of this process, without imports.
        asked: Whether the run will be asked to stop, by a signal other than SIGKILL.

    Attributes:
        whole: Directory of the run that is left alone.
        parts: Directory of the run that is killed.
    """

    def __init__(
        self, folder: Path, steps: int, workers: int = 0, processes: int = 1, fork: bool = False, asked: bool = False
    ) -> None:
        self.fork = fork
        self.folder = folder.resolve()
        self.config = write_tiny_run(self.folder, steps, workers, processes, asked)
        self.whole, self.parts = self.folder / "runs/whole", self.folder / "runs/parts"
        self._timeline: list[Event] = []
        self._startup = 0.0

    def reference(self) -> None:
        """Trains the run that is left alone; its timeline is what the other one's moments are drawn from.

        Raises:
            RuntimeError: If it fails.
        """
        started = time.time()
        code = wait_for_group(self._launch("whole", self.whole).start())
        if code:
            raise RuntimeError(f"the run that was left alone ended with {code}: see {self.folder / 'whole.log'}")
        self._timeline, _ = read_timeline(self.folder / "whole.timeline")
        self._startup = self._timeline[0].at - started
        ended = self._timeline[-1].at - self._timeline[0].at
        print(f"left alone: {self._startup:.1f} s to begin, {ended:.1f} s of training", flush=True)

    def killed(self, kills: int, number: signal.Signals, seed: int) -> Telling:
        """Trains the run that is killed, and lets it end after the last kill.

        Args:
            kills: Number of kills; fewer if the run finishes before.
            number: The signal.
            seed: Of the moments.

        Raises:
            RuntimeError: If an attempt fails on its own.
        """
        rng, told, started = random.Random(seed), Telling(), time.monotonic()
        for attempt in range(kills):
            moment = self._draw(kills - attempt, rng)
            process = self._go_on()
            struck = kill_at(process, moment, number, self.folder / "parts.timeline")
            self._check(told, process, number if struck else None)
            if not struck:
                print(f"attempt {attempt + 1} came to the end of the run before {moment}", flush=True)
                break
            told.kills.append(str(moment))
            print(f"{number.name} {attempt + 1}/{kills}: {moment}", flush=True)
        process = self._go_on()
        wait_for_group(process)
        self._check(told, process, None)
        told.seconds = time.monotonic() - started
        return told

    def _draw(self, left: int, rng: random.Random) -> Moment:
        """Draws the next moment so that all remaining ones still fall within the run."""
        if rng.random() < EARLY:
            return Moment(None, rng.uniform(0.0, self._startup))
        done = self._batches_saved()
        whole = max(event.batches for event in self._timeline)
        return draw_moment(self._timeline, done, (whole - done) / whole / (left + 1) + self._lost(), rng)

    def _lost(self) -> float:
        """Returns the part of the run that a kill costs on average: half the distance between two checkpoints."""
        saves = sum(event.name == "save" for event in self._timeline)
        return 0.5 / max(saves, 1)

    def _batches_saved(self) -> int:
        """Returns the training batches after which the newest checkpoint lets the run continue."""
        if newest_checkpoint(self.parts) is None:
            return 0
        events, _ = read_timeline(self.folder / "parts.timeline")
        return max((event.batches for event in events if event.name == "save"), default=0)

    def _go_on(self) -> Running:
        return self._launch("parts", self.parts, "--ckpt_path", "last").start()

    def _launch(self, name: str, directory: Path, *more: str) -> Launch:
        environment = {VARIABLE: str(self.folder / f"{name}.timeline")}
        return Launch(fit_command(self.config, directory, *more), environment, self.folder / f"{name}.log", self.fork)

    def _check(self, told: Telling, process: Running, number: signal.Signals | None) -> None:
        code = process.returncode
        told.codes.append(code)
        allowed = {0} if number is None else {0, -number, *INTERRUPTED}
        if code not in allowed:
            raise RuntimeError(f"an attempt ended with {code}: see {self.folder / 'parts.log'}")

"""A live run: its directory, its pace and whether it is still writing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...foundation.run_names import lock_name, step_of
from ..belonging import finished_step
from ..measurements import Measurement
from ..run import Run
from ..run_lock import Holder

SILENCE = 120.0
"""Minimum seconds without a new number before a run counts as quiet; three times its pace if that is longer."""
OBSERVED = 200
"""Number of changes over which the pace is measured."""


class RunView:
    """A run as seen from its directory.

    Args:
        path: The run directory.

    Attributes:
        run: The run as read so far.

    Raises:
        UserError: If it is not a run.
    """

    def __init__(self, path: Path) -> None:
        self.run = Run.open(path)
        self._lock = path / lock_name("fit")
        self._observed: list[tuple[float, int]] = []

    def refresh(self) -> None:
        """Reads the files again."""
        self.run.refresh()
        if self._observed and self.step < self._observed[-1][1]:  # it was resumed from an earlier step
            self._observed = []
        if not self._observed or self._observed[-1][1] != self.step:
            self._observed = [*self._observed[-OBSERVED:], (self.changed, self.step)]

    @property
    def planned(self) -> int | None:
        """Steps that its configuration asks for, if stated; a resumed run may have others."""
        return self.run.planned_steps

    @property
    def step(self) -> int:
        """The last known step."""
        return self.run.last_step

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Summaries of the evaluations of the validation questions, by step."""
        found = self.run.evaluations.get("val")
        return found.rows if found else []

    @property
    def changed(self) -> float:
        """When a number was last written, seconds since the epoch."""
        return self.run.changed.timestamp()

    @property
    def writer(self) -> Holder | None:
        """The process currently writing to the directory; None if the run has ended, was killed, or is a copy."""
        return Holder.alive(self._lock)

    @property
    def pace(self) -> float | None:
        """Seconds per step, over what was observed so far; before that, over the time since its process started.

        File times say nothing about a run without a writing process: they may be those of a copy.
        """
        (then, first), (now, last) = self._observed[0], self._observed[-1]
        if last == first and (writer := self.writer) is not None and writer.since is not None:
            then, first = writer.since, self._step_at(writer.since)
        return (now - then) / (last - first) if last > first and now > then else None

    def _step_at(self, time_: float) -> int:
        """Returns the step from which a process that began at this time continued: its newest earlier checkpoint's."""
        earlier = [file for file in self.run.checkpoints if file.stat().st_mtime < time_]
        return next((step for file in earlier if (step := step_of(file.name)) is not None), 0)

    @property
    def state(self) -> str:
        """Says whether it is still running.

        ``running``: a process writes to the directory, or it is a mirror of such a directory and has grown while
        watched. ``quiet``: the same, but without a new number for a long time. Otherwise, ``finished`` runs reached
        their end and ``stopped`` ones did not: they were ended or killed, or this is a copy.
        """
        if not self.live:
            done = finished_step(self.run.path) is not None or (self.planned is not None and self.step >= self.planned)
            return "finished" if done else "stopped"
        return "running" if time.time() - self.changed < max(SILENCE, 3 * (self.pace or 0)) else "quiet"

    @property
    def live(self) -> bool:
        """Whether something writes to the directory, so that file times are meaningful."""
        return self.writer is not None or (len(self._observed) > 1 and Holder.elsewhere(self._lock))

    @property
    def remaining(self) -> float | None:
        """Seconds to the planned end."""
        if not self.planned or self.pace is None or self.step >= self.planned:
            return None
        return self.pace * (self.planned - self.step)

    def profile(self, probe: str, estimator: str) -> list[Measurement]:
        """Returns the measurements of a probe by an estimator, by step."""
        return self.run.importance.of(probe, estimator)

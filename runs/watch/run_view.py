"""A run that goes on: its directory, how fast it is and whether it still writes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...foundation.run_names import CONFIG
from ..measurements import Measurement
from ..run import Run

SILENCE = 120.0
"""Seconds without a written number, at least, after which a run is called quiet; three times its pace if longer."""


class RunView:
    """A run as far as its directory tells.

    Args:
        path: The run directory.

    Attributes:
        run: What was read of it.
        planned: Steps that its configuration asks for, where it says so.

    Raises:
        UserError: If it is none.
    """

    def __init__(self, path: Path) -> None:
        self.run = Run.open(path)
        self.planned = self.run.planned_steps
        self._observed: list[tuple[float, int]] = []

    def refresh(self) -> None:
        """Looks at the files again."""
        self.run.refresh()
        if not self._observed or self._observed[-1][1] != self.step:
            self._observed = [*self._observed[-200:], (self.changed, self.step)]

    @property
    def step(self) -> int:
        """The last step of which anything is known."""
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
    def pace(self) -> float | None:
        """Seconds a step, over what was seen so far; before that, over the time since the config was written."""
        (then, first), (now, last) = self._observed[0], self._observed[-1]
        config = self.run.path / CONFIG
        if last == first and config.is_file():
            then, first = config.stat().st_mtime, 0
        return (now - then) / (last - first) if last > first and now > then else None

    @property
    def state(self) -> str:
        """``finished``, ``running`` or ``quiet``: a directory cannot tell a stopped run from a slow one."""
        if self.planned and self.step >= self.planned:
            return "finished"
        return "running" if time.time() - self.changed < max(SILENCE, 3 * (self.pace or 0)) else "quiet"

    @property
    def remaining(self) -> float | None:
        """Seconds to the planned end."""
        if not self.planned or self.pace is None or self.step >= self.planned:
            return None
        return self.pace * (self.planned - self.step)

    def profile(self, probe: str, estimator: str) -> list[Measurement]:
        """Gives the measurements of a probe by an estimator, by step."""
        return self.run.importance.of(probe, estimator)

"""The state of each run, in its own file, from which a stopped study continues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ...foundation.errors import UserError
from ...foundation.files import write_json
from .locking import exclusively

Status = Literal["pending", "running", "finished", "failed", "interrupted"]


@dataclass
class JobState:
    """A run's state.

    Attributes:
        job: Its name.
        status: ``running`` in the file of a vanished process means interrupted.
        directory: The run's, relative to the study's, so that a study may be moved.
        attempts: Number of starts.
        seconds: Total time of all attempts.
        fitted: Whether training is finished (the test may still be missing).
        tested: Whether it was scored on the test questions.
        error: Why it failed.
        log: File with its output, relative to the study's directory.
        submission: Mark of the SLURM array that the run was last given to; tasks of other arrays leave it alone.
        task: Its number in SLURM, as ``squeue`` writes it: ``46_1``.
        host: Machine of its child process.
        pid: The child's process id there; 0 if there is none.
        began: When that child started, as the machine records it.
    """

    job: str
    status: Status = "pending"
    directory: str = ""
    attempts: int = 0
    seconds: float = 0.0
    fitted: bool = False
    tested: bool = False
    error: str = ""
    log: str = ""
    submission: str = ""
    task: str = ""
    host: str = ""
    pid: int = 0
    began: str = ""

    def done(self, test: bool) -> bool:
        """Returns whether training and, if planned, the test are done."""
        return self.status == "finished" and (self.tested or not test)


class StateStore:
    """The states of a study's runs.

    Args:
        directory: Of the study.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "state"

    def read(self, job: str) -> JobState:
        """Returns a run's state; pending if it never started.

        Raises:
            UserError: If its file is damaged.
        """
        path = self.folder / f"{job}.json"
        if not path.is_file():
            return JobState(job)
        try:
            return JobState(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"study: {path} is damaged ({error}); removing it runs {job} again") from error

    def write(self, state: JobState) -> None:
        """Saves a state, atomically."""
        write_json(asdict(state), self.folder / f"{state.job}.json")

    @contextmanager
    def changing(self, job: str) -> Iterator[JobState]:
        """Yields a run's state for exclusive modification; it is saved at the end of the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusively(self.folder / ".lock"):
            state = self.read(job)
            yield state
            self.write(state)

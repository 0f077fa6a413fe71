"""SLURM's view of the tasks of a study; ``squeue`` answers even without accounting."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ...foundation.errors import UserError

TIMEOUT_SECONDS = 20

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}
"""Final states of a task; in all others it waits, runs or is in between."""


def task_name(directory: Path) -> str:
    """Returns the name of a study's tasks in SLURM."""
    return f"study-{directory.resolve().name}"


def is_over(state: str) -> bool:
    """Returns whether a task in this state has ended for good, as one that SLURM has forgotten (an empty state)."""
    return not state or state in _ENDED


class Squeue:
    """Queries the tasks of a study.

    Args:
        directory: Of the study.
    """

    def __init__(self, directory: Path) -> None:
        self._name = task_name(directory)
        self._silent = False

    def ask(self) -> dict[str, str] | None:
        """Returns number -> state of the tasks that SLURM knows, including those that ended recently.

        None while SLURM does not answer; silence and recovery are each reported once.

        Raises:
            UserError: If there is no SLURM here.
        """
        words = ["squeue", f"--user={os.getuid()}", "--array", "--noheader", "--states=all", "--format=%i|%T|%j"]
        try:
            answer = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True).stdout
        except FileNotFoundError:
            raise UserError("study: slurm: there is no squeue here") from None
        except (subprocess.SubprocessError, OSError) as error:
            if not self._silent:
                said = " ".join((getattr(error, "stderr", None) or str(error)).split())
                print(f"SLURM does not answer ({said}); waiting until it does", flush=True)
            self._silent = True
            return None
        if self._silent:
            print("SLURM answers again", flush=True)
        self._silent = False
        lines = [line.split("|", 2) for line in answer.splitlines()]
        return {number: state for number, state, name in lines if name == self._name}

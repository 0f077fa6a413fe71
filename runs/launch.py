"""Which job started this process, and whether it is a restart."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NO_NAME = "none"
"""The run id of ``torchrun`` if the user sets no rendezvous."""


@dataclass(frozen=True)
class Launch:
    """Who started a command, according to SLURM's and ``torchrun``'s environment variables.

    Attributes:
        job: ``SLURM job 77``, ``SLURM job 33_0`` for a task of an array, ``torchrun my-id``; empty without either. It
            stays the same when the job is restarted.
        part: Which of the job's commands it is: the agent of ``torchrun``, or SLURM's step. May be empty.
        attempt: How often the job, and within it ``torchrun``'s agent, has restarted its commands: (0, 0) at first.
    """

    job: str
    part: str
    attempt: tuple[int, int]
    elastic: bool = False
    """Whether an agent of ``torchrun`` started it: a single command, which it may restart without counting."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """Reads the environment of a command."""
        attempt = (_count(environment, "SLURM_RESTART_COUNT"), _count(environment, "TORCHELASTIC_RESTART_COUNT"))
        identity = " ".join(environment.get("TORCHELASTIC_RUN_ID", "").split())
        if job := environment.get("SLURM_JOB_ID"):
            if (array := environment.get("SLURM_ARRAY_JOB_ID")) and (task := environment.get("SLURM_ARRAY_TASK_ID")):
                job = f"{array}_{task}"  # as scontrol expects it
            step = environment.get("SLURM_STEP_ID")
            part = _agent() if identity else f"step {step}" if step else ""
            return cls(f"SLURM job {job}", part, attempt, bool(identity))
        if not identity:
            return cls("", "", (0, 0))
        # Without a rendezvous, all runs have the same name: only the agent tells them apart.
        named = (f"torchrun of {_agent()}", "") if identity == NO_NAME else (f"torchrun {identity}", _agent())
        return cls(*named, attempt, elastic=True)

    @property
    def again(self) -> bool:
        """Whether the job has been started before."""
        return bool(self.job) and self.attempt > (0, 0)

    @property
    def mark(self) -> str:
        """The first line of the config of a run that this launch begins; empty without a job."""
        return f"# {self.job}{f', {self.part}' if self.part else ''}\n" if self.job else ""

    def began(self, mark: str) -> bool:
        """Returns whether this job wrote a mark, in whichever of its attempts."""
        return bool(self.job) and f"{mark.rstrip()}, ".startswith(f"# {self.job}, ")


def _count(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0


def _agent() -> str:
    """Identifies the agent of ``torchrun``, this process's parent, by its id and start time, since ids are reused."""
    parent = os.getppid()
    try:
        status = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace")
        start = status.rpartition(")")[2].split()[19]  # field 22: clock ticks from the start of the machine
    except (OSError, IndexError):  # not Linux
        start = "?"
    return f"agent {parent} of {socket.gethostname()} started at {start}"

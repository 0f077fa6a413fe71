"""Real ``textkeep`` processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Textkeep = Callable[..., subprocess.CompletedProcess[str]]


def command(*words: object) -> list[str]:
    """The command line of a real ``textkeep`` process."""
    return [sys.executable, str(Path(sys.executable).with_name("textkeep")), *map(str, words)]


def child_environment(**changes: str) -> dict[str, str]:
    """One thread, offline, and no key that the developer may have."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TEXTKEEP_", "SLURM_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_ERROR_REPORTING": "false", **changes}

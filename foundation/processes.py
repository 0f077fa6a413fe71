"""Identifies a process: a process id may be reused, but not together with its start time."""

from __future__ import annotations

import subprocess
from pathlib import Path


def began(pid: int) -> str | None:
    """Returns when a process of this machine started, as the system records it; None if there is no such process.

    A zombie, not yet waited for by its parent, does not count.

    Args:
        pid: Its number.
    """
    if Path("/proc/self/stat").is_file():
        try:
            # The name, in parentheses, may contain anything: the fields are counted from its end (proc(5)).
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    told = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, beginning = told.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else beginning.strip()

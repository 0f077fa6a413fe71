"""Which process a number means: numbers come back, and a number with its beginning does not."""

from __future__ import annotations

import subprocess
from pathlib import Path


def began(pid: int) -> str | None:
    """Returns when a process of this machine began, as the system writes it; None if there is none of this number.

    One that has ended and is not yet waited for by its parent is none.

    Args:
        pid: Its number.
    """
    if Path("/proc/self/stat").is_file():
        try:
            # The name, in brackets, may hold anything: the fields are counted from its end (proc(5)).
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    told = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, beginning = told.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else beginning.strip()

"""A file system of a given size, seen by one process and its children only."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .processes import child_environment


def can_mount() -> bool:
    """Whether this user may mount a file system of its own."""
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(words, capture_output=True).returncode == 0


def on_disk(folder: Path, size: str, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script that sees an empty file system in ``folder``.

    Args:
        folder: Where it is mounted; it disappears with the script.
        size: Of the file system, as ``mount -o size=`` takes it.
        script: Lines of bash, run in the folder above; it may mount anew: ``mount -o remount,size=9m disk``.
        environment: Variables beside the usual ones.
    """
    folder.mkdir(exist_ok=True)
    text = f"mount -t tmpfs -o size={size} none {folder}\n{script}"
    words = ["unshare", "-m", "bash", "-euc", text]
    environment = child_environment(HOME=str(folder.parent), **environment)
    return subprocess.run(words, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=240)

"""Files that colleagues can read: safetensors and ``tempfile`` make private ones, whatever the umask says."""

from __future__ import annotations

import os
from pathlib import Path


def follow_umask(path: Path) -> None:
    """Gives a file, or all files in a folder, the mode that the umask gives a new file.

    Args:
        path: A file or a folder that this process has just written.
    """
    mask = os.umask(0o077)  # it can only be read by setting it; meanwhile new files are private, never the other way
    os.umask(mask)
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)

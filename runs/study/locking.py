"""File locks visible to other processes, on every machine that shares the file system."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Lets one process at a time into the block; the others wait.

    Args:
        path: A file beside what is changed; created if missing.
    """
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

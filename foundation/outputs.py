"""The rule for what is there already: it stays, unless the user says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError

OVERWRITE = "--overwrite"


def check_output(option: str, path: Path | None, overwrite: bool, *, folder: bool = False) -> None:
    """Refuses a place that is taken or cannot be written to, before the work whose result goes there.

    It is the one rule of all commands: what is there stays, unless ``--overwrite`` says otherwise.

    Args:
        option: Names the place in messages: ``-o``, ``--plot``.
        path: The place; None checks nothing.
        overwrite: Whether what is there may be replaced.
        folder: Whether a folder is to be made, and not a file. An empty one is free.

    Raises:
        UserError: With what is in the way.
    """
    if path is None:
        return
    kind = "folder" if folder else "file"
    if path.exists() and path.is_dir() != folder:
        raise UserError(f"{option} {path} is {'a file' if folder else 'a folder'}; allowed: the name of a {kind}")
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not overwrite:
        raise UserError(f"{option} {path} exists; allowed: a new name, or {OVERWRITE} to replace it")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is a file; allowed: a {kind} below a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {above} cannot be written to; allowed: a {kind} where you may write")

"""The rule for existing results: they stay, unless the user says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError

OVERWRITE = "--overwrite"


def check_output(option: str, path: Path | None, overwrite: bool, *, folder: bool = False) -> None:
    """Refuses an output that exists or cannot be written, before the work that produces it.

    It is the one rule of all commands: existing results stay, unless ``--overwrite`` is given.

    Args:
        option: Names the output in messages: ``-o``, ``--plot``.
        path: The output; None checks nothing.
        overwrite: Whether an existing result may be replaced.
        folder: Whether the output is a folder instead of a file. An empty one may be used.

    Raises:
        UserError: Naming the obstacle.
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

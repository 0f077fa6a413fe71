"""Files and folders that are written whole or not at all, and that colleagues can read."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def follow_umask(path: Path) -> None:
    """Gives a file, or all files in a folder, the mode that the umask gives a new file.

    safetensors and ``tempfile`` make private ones, whatever the umask says.

    Args:
        path: A file or a folder that this process has just written.
    """
    mask = os.umask(0o077)  # it can only be read by setting it; meanwhile new files are private, never the other way
    os.umask(mask)
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to; it takes its place if the block ends well and is removed if not.

    The name is new each time: of several processes that write one file, on whatever machines, the last wins. Missing
    folders are made.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside ``folder`` to fill; it takes the place of ``folder`` if the block ends well.

    What was there goes only when the new one is complete. Missing folders above it are made; of a link, the folder that
    it leads to is replaced.

    Raises:
        OSError: If it cannot be written.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        _take_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(value: Any, path: Path) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes JSON objects, one a line, whole or not at all; numbers that are not finite become null.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _finite(value: Any) -> Any:
    """Gives the value without NaN and infinities, for which JSON has no word."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _take_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    old = _beside(folder)
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _beside(path: Path) -> Path:
    # Not the process's number: containers on several nodes give the same ones.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")

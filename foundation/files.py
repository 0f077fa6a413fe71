"""Files and folders that are written completely or not at all, and that colleagues can read."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_IO_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which has its own error class, ends the system's message."""


def follow_umask(path: Path) -> None:
    """Sets the mode of a file, or of all files in a folder, to what the umask gives new files.

    safetensors and ``tempfile`` make private ones, whatever the umask says.

    Args:
        path: A file or a folder that this process has just written.
    """
    mask = os.umask(0o077)  # it can only be read by setting it; until reset, new files are private, never the opposite
    os.umask(mask)
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes an error name what could not be written: a full disk shows only while writing, without a name.

    Args:
        path: What is written in the block.

    Raises:
        OSError: If it cannot be written; it names the path.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        if (found := _IO_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


@contextmanager
def replacing(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Provides a name beside ``path`` to write to; on success it replaces ``path``, otherwise it is removed.

    The name is unique: if several processes write one file, on whatever machines, the last wins. Missing
    folders are made.

    Args:
        path: The file to make.
        lasting: Wait until the disk has it: after a power cut, either the old file or the new one is there, complete.

    Raises:
        OSError: If it cannot be written; it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with naming(path):
            yield temporary
            if lasting:
                sync(temporary)
            temporary.replace(path)
        if lasting:
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # a disk that can no longer be written to: the first error reports it
            temporary.unlink(missing_ok=True)


def replace_link(path: Path, target: Path) -> None:
    """Makes a link to a file, atomically replacing a link or file of that name.

    If the file system has no links, the file is copied.

    Args:
        path: The link.
        target: Its target; the link is relative to its own folder.

    Raises:
        OSError: If it cannot be made.
    """
    temporary = _beside(path)
    try:
        temporary.symlink_to(os.path.relpath(target, path.parent))
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with replacing(path, lasting=True) as copy:
            shutil.copyfile(target, copy)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder.

    Raises:
        OSError: If that fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in a folder; does nothing on file systems that do not support it."""
    with suppress(OSError):
        sync(folder)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Removes unfinished files and folders that a killed process left behind.

    Only for a folder that no other process writes to at this moment.

    Args:
        folder: Where to look, and below it.
        name: Pattern of the intended names.
    """
    for left in list(folder.rglob(f".{name}.{'[0-9a-f]' * 12}.tmp")):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Returns an empty folder beside ``folder`` to fill; on success it replaces ``folder``.

    The old one is removed only when the new one is complete. Missing parent folders are made; if it is a link, its
    target is replaced.

    Raises:
        OSError: If it cannot be written; it names the folder, or a file in it.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder)
    temporary.mkdir()
    try:
        with naming(folder):
            yield temporary
            _take_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, folder: Path) -> None:
    """Gives a folder that is complete its name, which another folder or file may have, and waits for the disk.

    Args:
        temporary: Beside it; its files are on the disk.
        folder: The name.
    """
    sync_folder(temporary)
    _take_place(temporary, folder)
    sync_folder(folder.parent)


def remove_at_once(path: Path) -> None:
    """Removes a file or folder; a process that is killed meanwhile leaves no half of it under its name."""
    aside = _beside(path)
    path.rename(aside)
    _remove(aside)


def write_json(value: Any, path: Path) -> None:
    """Writes a JSON file completely or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes JSON objects, one per line, completely or not at all; non-finite numbers become null.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _finite(value: Any) -> Any:
    """Returns the value without NaN and infinities, which JSON cannot represent."""
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
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _beside(path: Path) -> Path:
    # Not the process id: containers on several nodes share them.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")

"""Unpacking wheels, npm tarballs and Debian packages, without the programs that install them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ...foundation.errors import UserError

AR_MAGIC, AR_HEADER = b"!<arch>\n", 60


def unpack_wheel(path: Path, folder: Path) -> None:
    """Unpacks a wheel (a zip file)."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)


def unpack_tarball(path: Path, folder: Path) -> None:
    """Unpacks a gzipped tar file; members that would leave the folder are refused."""
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Reads the names and contents of a Unix ``ar`` archive."""
    position = len(AR_MAGIC)
    while position + AR_HEADER <= len(data):
        header = data[position : position + AR_HEADER]
        size = int(header[48:58])
        start = position + AR_HEADER
        yield header[:16].decode().strip().rstrip("/"), data[start : start + size]
        position = start + size + size % 2  # members begin at even positions


def unpack_deb(path: Path, folder: Path) -> None:
    """Unpacks the files of a Debian package (an ``ar`` archive that holds a tar file).

    Raises:
        UserError: If it is not a Debian package.
    """
    data = path.read_bytes()
    if not data.startswith(AR_MAGIC):
        raise UserError(f"assets: {path.name} is not a Debian package")
    for name, content in _members(data):
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(folder, filter="data")
            return
    raise UserError(f"assets: {path.name} holds no files")


UNPACKERS: dict[str, Callable[[Path, Path], None]] = {
    ".whl": unpack_wheel,
    ".tgz": unpack_tarball,
    ".deb": unpack_deb,
}

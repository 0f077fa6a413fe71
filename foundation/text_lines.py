r"""Text files from elsewhere, read in one way throughout.

Lines are UTF-8 and end with ``\n``, ``\r\n`` or ``\r``, and with nothing else: U+2028 and U+0085 may occur unescaped in
a JSON string. A byte order mark is dropped, at the start of a file and where several files were joined. Files
compressed with gzip are opened, whatever their name; other compressions and UTF-16 are reported. A line that is not
text is one bad line with its number, and the others are read.
"""

from __future__ import annotations

import gzip
import zlib
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NoReturn

LONGEST_LINE = 256 * 2**20
"""In bytes: anything longer is a file without lines, which must not fill the memory."""

_NO_TEXT = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1\x15": "a parquet file",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""First bytes -> what such a file is."""


class BadLineError(ValueError):
    """A line that cannot be used.

    Args:
        reason: Short name of the fault ("not UTF-8").
        location: Location of the line ("train.jsonl:12").
        detail: What is wrong and what is allowed.
    """

    def __init__(self, reason: str, location: str, detail: str) -> None:
        super().__init__(f"{location}: {detail}")
        self.reason = reason
        self.location = location
        self.detail = detail


OnBadLine = Callable[[BadLineError], None]


def refuse(error: BadLineError) -> NoReturn:
    """Raises the error: a bad line ends the reading."""
    raise error


def text_lines(path: str | Path, on_bad: OnBadLine = refuse) -> Iterator[tuple[int, str]]:
    """Yields the number (from 1) and text of each line of a file, without its ending; one line is in memory at a time.

    Args:
        path: Text, or text compressed with gzip.
        on_bad: Receives each line that is not text; it raises, or the line is left out.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If the whole file is not text, or its compression is damaged.
        BadLineError: If a line is not text and ``on_bad`` raises it.
    """
    number = 0
    with _opened(path) as file:
        while raw := _next(file, path, number):
            if len(raw) > LONGEST_LINE:
                number += 1
                while raw and not raw.endswith(b"\n"):
                    raw = _next(file, path, number)
                allowed = f"allowed: lines of at most {LONGEST_LINE} bytes"
                on_bad(BadLineError("line too long", f"{path}:{number}", f"the line is longer; {allowed}"))
                continue
            for piece in raw.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
                number += 1
                try:
                    text = _decoded(piece, f"{path}:{number}")
                except BadLineError as error:
                    on_bad(error)
                    continue
                yield number, text


def paragraphs(path: str | Path, on_bad: OnBadLine = refuse) -> Iterator[tuple[int, str]]:
    """Yields the first line's number and the text of each passage between empty lines.

    A passage with a bad line is left out entirely: without the line it would be a different text.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: As ``text_lines`` does.
    """
    lines: list[str] = []
    first, damaged = 0, False

    def note(error: BadLineError) -> None:
        nonlocal damaged
        damaged = True
        on_bad(error)

    for number, line in chain(text_lines(path, note), [(0, "")]):
        if line.strip():
            first = first if lines else number
            lines.append(line)
            continue
        if lines and not damaged:
            yield first, "\n".join(lines)
        lines, damaged = [], False


def read_text(path: str | Path) -> str:
    r"""Reads the whole text of a file, its lines ending with ``\n``.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not text; the message has file and line.
    """
    try:
        with _opened(path) as file:
            text = _decoded(_read(file.read, path, 0), str(path))
    except BadLineError:
        deque(text_lines(path), maxlen=0)  # raises at the bad line
        raise
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_name(path: str | Path) -> Path:
    """Removes ``.gz`` from the path of a compressed file: the remaining suffix says what is inside."""
    path = Path(path)
    return path.with_suffix("") if path.suffix == ".gz" else path


def _opened(path: str | Path) -> BinaryIO:
    """Opens the file, decompressed.

    Raises:
        ValueError: If it is another kind of file.
    """
    with open(path, "rb") as file:
        start = file.read(10)
    kind = next((kind for magic, kind in _NO_TEXT.items() if start.startswith(magic)), None)
    if start.startswith(b"BZh") and start[4:] == b"1AY&SY":
        kind = "compressed with bzip2"
    if kind is not None:
        raise ValueError(f"{path}: {kind}; allowed: text in UTF-8, plain or compressed with gzip")
    return gzip.open(path, "rb") if start.startswith(b"\x1f\x8b") else open(path, "rb")  # type: ignore[return-value]


def _next(file: BinaryIO, path: str | Path, number: int) -> bytes:
    """Reads the next line in bytes, up to one byte more than the longest allowed."""
    return _read(partial(file.readline, LONGEST_LINE + 1), path, number)


def _read(read: Callable[[], bytes], path: str | Path, number: int) -> bytes:
    """Returns the result of ``read``; damaged compression is reported with the number of lines before it."""
    try:
        return read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        cause = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{path}: damaged after line {number} ({cause}); allowed: a whole gzip file") from None


def _decoded(raw: bytes, location: str) -> str:
    raw = raw.removeprefix(BOM_UTF8)
    if b"\0" in raw:
        detail = "the line holds NUL bytes (another encoding, or a file that was not written to its end)"
        raise BadLineError("NUL", location, f"{detail}; allowed: text in UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = raw[max(error.start - 10, 0) : error.end + 10].decode("utf-8", "replace")
        detail = f"not UTF-8 (byte 0x{raw[error.start]:02x} in {shown!r}); allowed: text in UTF-8"
        raise BadLineError("not UTF-8", location, detail) from None

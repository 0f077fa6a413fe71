"""The file of a page, and the mark that identifies it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ...foundation.files import replacing

MARK = "<!-- textkeep report of {} -->\n"
"""Last line of a page: the directories that it is about, relative to its folder."""


def is_page_about(output: Path, about: Sequence[Path]) -> bool:
    """Returns whether a page about the same directories exists; it may be replaced, since they can reproduce it."""
    return output.is_file() and output.read_bytes().endswith(mark(output, about).encode())


def is_page_from(output: Path, first: Path) -> bool:
    """Returns whether a page exists that is about a run, alone or as the first of several."""
    opened = mark(output, [first]).rpartition("]")[0].encode()
    lines = output.read_bytes().splitlines() if output.is_file() else []
    return bool(lines) and lines[-1].startswith((opened + b"]", opened + b", "))


def mark(output: Path, about: Sequence[Path]) -> str:
    """Returns the line that states what a page is about."""
    folder = output.parent.resolve()
    names = [Path(os.path.relpath(path.resolve(), folder)).as_posix() for path in about]
    return MARK.format(json.dumps(names, ensure_ascii=False).replace("--", "-\\u002d"))


def write_page(text: str, output: Path, about: Sequence[Path] = ()) -> None:
    """Writes under a temporary name and renames, so that a browser never loads half a page.

    Args:
        text: The page.
        output: Where to.
        about: Directories that it is about, for its last line; none leaves the line out.

    Raises:
        OSError: If it cannot be written.
    """
    ending = mark(output, about) if about else ""
    with replacing(output) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n" + ending, encoding="utf-8")

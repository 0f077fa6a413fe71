"""JSON in text files: objects, one per line, and text that can be written back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .text_lines import BadLineError, OnBadLine, read_text, refuse, text_lines

_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
"""Escapes that may not be text; most lines have none and need no further check."""


def json_objects(path: str | Path, on_bad: OnBadLine = refuse) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line number and object of each non-empty line.

    Args:
        path: JSON objects, one per line, read by ``text_lines``.
        on_bad: Receives each line that is not text, not a JSON object, or contains strings that are not text.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If the whole file is not text.
        BadLineError: If a line is bad and ``on_bad`` raises it.
    """
    for number, line in text_lines(path, on_bad):
        if not line.strip():
            continue
        location = f"{path}:{number}"
        try:
            record = parse_json(line, location)
            if not isinstance(record, dict):
                detail = f"a JSON {type(record).__name__}; allowed: one object per line"
                raise BadLineError("bad json", location, detail)
            if _SUSPECT.search(line):
                require_text(record, location)
        except BadLineError as error:
            on_bad(error)
            continue
        yield number, record


def json_document(path: str | Path, allowed: str) -> Any:
    """Reads the value of a file that contains one JSON text.

    Args:
        path: Read by ``text_lines``. The contents of strings are not checked (``require_text``).
        allowed: What is expected there, for messages.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not JSON; the message has file and line.
    """
    text = read_text(path)
    try:
        return _parsed(text)
    except _JSONError as error:
        raise BadLineError("bad json", f"{path}:{error.line}", f"not JSON ({error}); allowed: {allowed}") from None


def parse_json(text: str, location: str, allowed: str = "one object per line") -> Any:
    """Reads the value of a JSON text on one line.

    Args:
        text: The JSON.
        location: Its location, for messages.
        allowed: What is expected there, for messages.

    Raises:
        BadLineError: If it is not JSON, is nested too deeply or contains an overlong number.
    """
    try:
        return _parsed(text)
    except _JSONError as error:
        detail = f"not JSON ({error}{_hint(text)}); allowed: {allowed}"
        raise BadLineError("bad json", location, detail) from None


class _JSONError(ValueError):
    """What is wrong with a text, and on which line."""

    def __init__(self, cause: str, line: int = 1) -> None:
        super().__init__(cause)
        self.line = line


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _JSONError(f"{error.msg}: column {error.colno}", error.lineno) from None
    except RecursionError:
        raise _JSONError("nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise _JSONError(str(error)) from None


def require_text(value: Any, location: str) -> None:
    """Refuses strings, keys included, that no file can contain: half a surrogate pair, or NUL.

    Raises:
        BadLineError: With the string, or if the value is nested too deeply to be searched.
    """
    try:
        strings = list(_strings(value))
    except RecursionError:
        raise BadLineError("bad json", location, "nested too deeply; allowed: a few levels") from None
    for text in strings:
        if "\0" in text:
            raise BadLineError("NUL", location, f"NUL in {_shown(text)}; allowed: text without it")
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            detail = f"half a surrogate pair in {_shown(text)}; allowed: whole characters"
            raise BadLineError("lone surrogate", location, detail)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def _hint(text: str) -> str:
    """Returns what the line looks like, where it is a mistake that many make."""
    stripped = text.strip()
    if stripped.startswith("[") or stripped == "]":
        return "; it looks like a JSON list over several lines"
    if stripped.endswith(","):
        return "; no comma stands between lines"
    if stripped.startswith("{'"):
        return "; strings stand in double quotes"
    return ""

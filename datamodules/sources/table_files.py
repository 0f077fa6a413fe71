"""Rows of tables that are text: CSV, TSV, JSON and JSONL, each cell as the file holds it.

The readers of ``datasets`` guess types from a column's values ("NA" is no value, 007 a 7, 2020-01-01 a time) and end at
the first bad row without its line. Here a cell of a CSV file is its text, and a bad row is one bad example.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from ...foundation.json_lines import json_document, json_objects, require_text
from ...foundation.text_lines import BadLineError, OnBadLine, plain_name, text_lines


class TableRow(NamedTuple):
    """A row of a table."""

    location: str
    """Place of its first line ("train.csv:12")."""
    number: int
    """Among the rows of its file, from 0; rows that are left out count."""
    cells: dict[str, Any]
    """By the column's name; None where there is no value."""


def read_table(path: str | Path, on_bad: OnBadLine, delimiter: str | None = None) -> Iterator[TableRow]:
    """Reads the rows of a file whose suffix is one of ``TABLE_SUFFIXES``.

    Args:
        path: The file, plain or compressed with gzip.
        on_bad: Receives each row that cannot be used.
        delimiter: What stands between CSV fields; by default a comma, in .tsv files a tab.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If the whole file cannot be read.
    """
    suffix = plain_name(path).suffix.lower()
    if delimiter is not None and suffix in (".csv", ".tsv"):
        return _csv_rows(path, on_bad, delimiter)
    return _READERS[suffix](path, on_bad)


def _csv_rows(path: str | Path, on_bad: OnBadLine, delimiter: str = ",") -> Iterator[TableRow]:
    """Reads rows under a header: an empty cell is no value, all others are texts; nameless columns are left out."""
    lines = _NumberedLines(path, on_bad)
    records = _csv_records(lines, path, on_bad, delimiter)
    _, header = next(records, (0, []))
    named = [name for name in header or () if name]
    if header is None or not named or len(set(named)) < len(named):
        allowed = "a first line with the columns' names, each once"
        raise ValueError(f"{path}: the header is {header}; allowed: {allowed}")
    index = count()
    for first, cells in records:
        location, row = f"{path}:{first}", next(index)
        if cells is None:
            continue
        if len(cells) > len(header):
            detail = (
                f"{len(cells)} fields; allowed: at most {len(header)}, as the header has ({', '.join(header)[:80]})"
            )
            on_bad(BadLineError("ragged row", location, detail))
            continue
        filled = zip_longest(header, cells)  # the last fields of a row may be left out
        yield TableRow(location, row, {name: cell or None for name, cell in filled if name})


def _csv_records(
    lines: _NumberedLines, path: str | Path, on_bad: OnBadLine, delimiter: str
) -> Iterator[tuple[int, list[str] | None]]:
    """Yields the first line and the fields of each record; None for a bad one, which has been reported."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first, told = lines.number + 1, lines.bad
        try:
            cells = next(reader, None)
        except csv.Error as error:
            until = f" at line {lines.number}" if lines.number > first else ""
            detail = f"not CSV ({error}{until}); allowed: quotes that are closed, and doubled inside"
            on_bad(BadLineError("bad csv", f"{path}:{first}", detail))
            for line in range(first + 1, lines.number + 1):  # a quote that is never closed takes all that follow it
                lost = f"lost with line {first}, where a quote opens; allowed: quotes that are closed"
                on_bad(BadLineError("bad csv", f"{path}:{line}", lost))
            yield first, None
            continue
        if cells is None:
            return
        if lines.bad > told:
            yield first, None
        elif cells:
            yield first, cells


class _NumberedLines:
    """Lines for ``csv.reader``, which counts only those that it receives: a bad line is an empty one here, and counts.

    Args:
        path: The file.
        on_bad: Receives the lines that are no text.
    """

    def __init__(self, path: str | Path, on_bad: OnBadLine) -> None:
        self.number = 0
        self.bad = 0
        self._lines = self._numbered(text_lines(path, on_bad))

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _numbered(self, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
        for number, text in lines:
            while self.number + 1 < number:
                self.number += 1
                self.bad += 1
                yield "\n"
            self.number = number
            yield f"{text}\n"


def _json_lines(path: str | Path, on_bad: OnBadLine) -> Iterator[TableRow]:
    index = count()

    def note(error: BadLineError) -> None:
        next(index)
        on_bad(error)

    for number, record in json_objects(path, note):
        yield TableRow(f"{path}:{number}", next(index), record)


def _json_rows(path: str | Path, on_bad: OnBadLine) -> Iterator[TableRow]:
    """Reads a JSON list of objects, or JSON lines."""
    first = next((text for _, text in text_lines(path, lambda error: None) if text.strip()), "")
    if not first.lstrip().startswith("["):
        yield from _json_lines(path, on_bad)
        return
    for index, record in enumerate(json_document(path, "a list of objects, or one object per line")):
        location = f"{path}[{index}]"
        try:
            if not isinstance(record, dict):
                detail = f"a JSON {type(record).__name__}; allowed: a list of objects"
                raise BadLineError("bad json", location, detail)
            require_text(record, location)
        except BadLineError as error:
            on_bad(error)
            continue
        yield TableRow(location, index, record)


_READERS: dict[str, Callable[[str | Path, OnBadLine], Iterator[TableRow]]] = {
    ".csv": _csv_rows,
    ".tsv": partial(_csv_rows, delimiter="\t"),
    ".json": _json_rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
TABLE_SUFFIXES = frozenset(_READERS)
"""Suffixes of the files that ``read_table`` reads."""

"""Tables that ``HFDataset`` reads: rows with columns and, optionally, clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .example import Audio
from .manifest import ClipFinder
from .table_files import TableRow

if TYPE_CHECKING:
    from datasets import ClassLabel, Dataset


class Table(Protocol):
    """Rows with columns."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns."""
        ...

    def rows(self) -> Iterator[TableRow]:
        """Returns the rows, without clips."""
        ...

    def clip(self, row: TableRow, column: str) -> Audio | None:
        """Returns the clip of a row, or None if the row has none.

        Raises:
            BadExampleError: If it cannot be found.
        """
        ...


class FileTable:
    """Rows of text files; clips are named by their paths.

    Args:
        rows: Rows of the files.
        finder: Finds the clips.
    """

    def __init__(self, rows: Iterable[TableRow], finder: ClipFinder) -> None:
        self._rows = list(rows)
        self._finder = finder
        self.columns = list(dict.fromkeys(name for row in self._rows for name in row.cells))

    def rows(self) -> Iterator[TableRow]:
        """Returns the rows."""
        return iter(self._rows)

    def clip(self, row: TableRow, column: str) -> Audio | None:
        """Returns the path of a row's clip."""
        return _named_clip(row, column, self._finder)


@dataclass(frozen=True, eq=False)
class TableAudio:
    """A clip in a column of a data set: read when it is needed, by soundfile instead of torchcodec."""

    table: Dataset
    column: str
    index: int

    def read(self) -> bytes | Path:
        """Reads the bytes of the clip's file, or its path where the table keeps only that.

        Raises:
            ValueError: If the table keeps neither.
        """
        cell = self.table[self.index][self.column] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path") is None:
            raise ValueError("the table has neither its bytes nor its path")
        return Path(cell["path"])


class ArrowTable:
    """A data set of the library ``datasets``; its clips are not decoded.

    Args:
        table: The data set.
        name: For the places of rows.
        finder: Finds clips in columns of plain paths.
    """

    def __init__(self, table: Dataset, name: str, finder: ClipFinder) -> None:
        self.columns = list(table.column_names)
        self._table = table
        self._name = name
        self._finder = finder
        self._clips: dict[str, Dataset] = {}

    def rows(self) -> Iterator[TableRow]:
        """Yields the rows, classes by their names."""
        import datasets

        texts = self._table.remove_columns([name for name in self.columns if _holds_clips(self._table, name)])
        classes = {name: kind for name, kind in texts.features.items() if isinstance(kind, datasets.ClassLabel)}
        for index, cells in enumerate(texts):
            named = {name: _class_name(kind, cells[name]) for name, kind in classes.items()}
            yield TableRow(f"{self._name}:{index}", index, {**cells, **named})

    def clip(self, row: TableRow, column: str) -> Audio | None:
        """Returns the clip of a row, to be read later."""
        if column not in self.columns or not _holds_clips(self._table, column):
            return _named_clip(row, column, self._finder)
        if column not in self._clips:
            self._clips[column] = _undecoded(self._table, column)
        clips = self._clips[column]
        # A null cell can be told without reading the clip, unless rows were picked out of a larger table.
        if clips._indices is None and not clips.data.column(column)[row.number].is_valid:
            return None
        return TableAudio(clips, column, row.number)


def nested(row: Mapping[str, Any], column: str) -> object:
    """Follows the dots of a column name to a cell; None where a level is missing."""
    value: object = row
    for key in [column] if column in row else column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _named_clip(row: TableRow, column: str, finder: ClipFinder) -> Audio | None:
    given = nested(row.cells, column)
    if isinstance(given, Mapping) and "path" in given:
        given = given["path"]
    return None if given is None else finder.find(given, row.location)


def _class_name(kind: ClassLabel, value: int | None) -> str | None:
    return None if value is None or value < 0 else str(kind.int2str(value))


def _undecoded(table: Dataset, column: str) -> Dataset:
    """Returns an audio column alone, as bytes and paths."""
    import datasets

    alone = table.select_columns([column])
    is_audio = isinstance(table.features[column], datasets.Audio)
    return alone.cast_column(column, datasets.Audio(decode=False)) if is_audio else alone


def _holds_clips(table: Dataset, column: str) -> bool:
    """Returns whether a column holds the content of audio files, which must not be read with the text."""
    import datasets

    feature = table.features[column]
    return isinstance(feature, datasets.Audio) or (isinstance(feature, dict) and {"bytes", "path"} <= set(feature))

"""Folders of text files: which files are a split, and whether they can be read without the library ``datasets``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...foundation.text_lines import OnBadLine, plain_name
from .table_files import TABLE_SUFFIXES, TableRow, read_table

if TYPE_CHECKING:
    from datasets import BuilderConfig, DatasetBuilder

_METADATA = ("metadata.csv", "metadata.jsonl")
_FILE_NAME = "file_name"
_FREE_SETTINGS = frozenset({"name", "version", "data_dir", "data_files", "description", "sep", "delimiter"})


@dataclass(frozen=True)
class TextFiles:
    """Text files behind a folder or path, which are read without the library ``datasets``.

    Args:
        files: Paths by split.
        delimiter: What stands between CSV fields, where it is not the usual one.
        clips: The folder, where the files are the metadata of a folder of clips.
    """

    files: Mapping[str, Sequence[str]]
    delimiter: str | None = None
    clips: Path | None = None

    def rows(self, split: str, on_bad: OnBadLine) -> Iterator[TableRow]:
        """Reads the rows of a split, or of a slice or sum of splits ("train[:100]").

        Raises:
            ValueError: If there is no such split.
        """
        if split in self.files:
            return self._rows(split, on_bad)
        import datasets

        read = {name: list(self._rows(name, on_bad)) for name in self.files if name in split}
        if not read:
            raise ValueError(f"no split {split!r} among {', '.join(self.files)}")
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in read.items()})
        return (row for part in parts for row in read[part.splitname][part.from_ : part.to])

    def _rows(self, split: str, on_bad: OnBadLine) -> Iterator[TableRow]:
        before = 0
        for file in self.files[split]:
            last = -1
            for row in read_table(file, on_bad, self.delimiter):
                last = row.number
                cells = row.cells if self.clips is None else _with_paths(row.cells, Path(file).parent, self.clips)
                yield row._replace(number=before + row.number, cells=cells)
            before += last + 1


def text_files(builder: DatasetBuilder, folder: Path) -> TextFiles | None:
    """Finds the text files of a folder of CSV, JSON or clips; None if ``datasets`` must read it.

    Args:
        builder: What ``datasets`` found in the folder.
        folder: The folder.

    Raises:
        ValueError: If it is a folder of clips without their questions.
    """
    config = builder.config
    if builder.info.features is not None or not _usual(config):
        return None
    files = {str(split): [str(file) for file in found] for split, found in (config.data_files or {}).items()}
    kind = type(config).__name__
    if kind == "AudioFolderConfig":
        described = {split: [file for file in found if Path(file).name in _METADATA] for split, found in files.items()}
        described = {split: found for split, found in described.items() if found}
        if not described and not any(file.endswith(("metadata.parquet", ".zip")) for f in files.values() for file in f):
            raise ValueError(
                "a folder of clips without their questions; allowed: beside the clips a metadata.jsonl or metadata.csv "
                "with file_name, question and answers"
            )
        return TextFiles(described, clips=folder) if described else None
    suffixes = {plain_name(file).suffix.lower() for found in files.values() for file in found}
    if kind not in ("CsvConfig", "JsonConfig") or not suffixes <= TABLE_SUFFIXES:
        return None
    return TextFiles(files, getattr(config, "sep", None))


def _usual(config: BuilderConfig) -> bool:
    """Returns whether a folder's own description changes nothing about how its files are read."""
    usual = type(config)()
    names = {field.name for field in dataclasses.fields(config)} - _FREE_SETTINGS
    return all(getattr(config, name) == getattr(usual, name) for name in names)


def _with_paths(cells: Mapping[str, Any], beside: Path, folder: Path) -> dict[str, Any]:
    """Renames ``file_name`` to ``audio`` and ``x_file_name`` to ``x``: paths relative to the folder of clips."""
    changed = {}
    for name, value in cells.items():
        if name.endswith(_FILE_NAME) and isinstance(value, str):
            name = name.removesuffix(_FILE_NAME).removesuffix("_") or "audio"
            value = os.path.relpath(beside.resolve() / value, folder.resolve())
        changed[name] = value
    return changed

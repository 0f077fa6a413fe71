"""Questions from a Hugging Face data set, by hub id or local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...foundation.json_lines import json_document
from ...foundation.text_lines import plain_name
from .bad_examples import BadExampleError, BadExamples
from .example import Example
from .manifest import ClipFinder
from .source import Source, build_example, without_duplicates
from .table_files import TABLE_SUFFIXES
from .tables import ArrowTable, FileTable, Table, nested
from .text_files import TextFiles, text_files

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_FIELDS = ("id", "question", "answers", "target", "audio", "system", "seconds")
_ALLOWED = (
    "a hub id that can be reached or is in the cache, a folder of save_to_disk, a folder of clips with metadata.jsonl, "
    "a folder or file of parquet, JSON or CSV"
)


class HFDataset(Source):
    """A data set of the Hugging Face hub, a folder of ``save_to_disk`` or of clips, or a parquet, JSON or CSV file.

    Each cell of a local CSV file is the text that stands there ("NA", 1969, 007), and an empty one is no value. A
    folder of clips has a ``metadata.jsonl`` or ``metadata.csv`` with ``file_name`` and our fields; the clips are
    ``audio``. An answer that is a number is learned as its text. The library ``datasets`` reads parquet and what lies
    on the hub; in CSV files there it guesses types (007 becomes 7): download them to have the texts.

    Args:
        path: Hub id ("owner/name"), folder or file.
        split: Which split.
        name: Configuration of the data set, where it has several.
        columns: Our field -> their column, dots lead into nested columns: ``{question: prompt, answers: answer.aliases,
            audio: clip}``. Fields: id, question, answers, target, audio, system, seconds. A field that is not named is
            read from a column of the same name if there is one. Other columns become metadata.
        audio_root: Folder that an audio column of plain paths is relative to.
        revision: Branch, tag or commit of a hub data set.
        question_required: False allows spoken questions without their text.
        where: Column -> the value, or list of values, that the rows to be read have there, compared as text:
            ``{round: 1}``.
        where_not: Column -> the value or values that they do not have: ``{split_name: identity}``.
        leave_out: Columns that are not read at all: large ones that nobody needs would be every example's metadata.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        name: str | None = None,
        columns: dict[str, str] | None = None,
        audio_root: str | None = None,
        revision: str | None = None,
        question_required: bool = True,
        where: dict[str, Any] | None = None,
        where_not: dict[str, Any] | None = None,
        leave_out: Sequence[str] | None = None,
    ) -> None:
        unknown = sorted(set(columns or {}) - set(_FIELDS))
        if unknown:
            raise ValueError(f"HFDataset.columns: {', '.join(unknown)} unknown (allowed: {', '.join(_FIELDS)})")
        self.path = path
        self.split = split
        self.config = name
        self.columns = columns or {}
        self.audio_root = Path(audio_root) if audio_root else None
        self.revision = revision
        self.question_required = question_required
        self.where = where or {}
        self.where_not = where_not or {}
        self.leave_out = tuple(leave_out or ())
        self.name = Path(path).name

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Reads all rows but not the clips."""
        table = self._table(bad)
        columns = self._mapping(table, answers_required)
        audio = columns.pop("audio", None)
        examples = []
        for row in table.rows():
            if not self._wanted(row.cells):
                continue
            try:
                clip = table.clip(row, audio) if audio else None
                record = self._record(row.cells, columns, row.number)
                examples.append(
                    build_example(record, clip, row.location, self.name, self.question_required, answers_required)
                )
            except BadExampleError as error:
                bad.report(error)
        return without_duplicates(examples, bad)

    def _table(self, bad: BadExamples) -> Table:
        found = self._found()
        if not isinstance(found, TextFiles):
            found = found.remove_columns([name for name in self.leave_out if name in found.column_names])
            return ArrowTable(found, f"{self.path}[{self.split}]", ClipFinder(self.audio_root or Path()))
        try:
            rows = found.rows(self.split, bad.report)
        except BadExampleError:
            raise
        except ValueError as error:
            raise self._refused(error) from None
        return FileTable(rows, ClipFinder(self.audio_root or found.clips or Path()))

    def _found(self) -> Dataset | TextFiles:
        """Finds what the path means.

        Raises:
            ValueError: If it is nothing that can be read; the message has the cause.
        """
        import datasets

        local = Path(self.path)
        try:
            if (local / "state.json").is_file():
                return datasets.load_from_disk(str(local))
            if (local / "dataset_dict.json").is_file():
                return _pick(datasets.load_from_disk(str(local)), self.split)
            if local.is_file():
                return self._file(local)
            if local.is_dir():
                builder = datasets.load_dataset_builder(self.path, self.config)
                if (files := text_files(builder, local)) is not None:
                    return files
            return datasets.load_dataset(self.path, self.config, split=self.split, revision=self.revision)
        except (OSError, ValueError, ImportError, datasets.exceptions.DatasetGenerationError) as error:
            raise self._refused(error) from None

    def _file(self, file: Path) -> Dataset | TextFiles:
        import datasets

        suffix = plain_name(file).suffix.lower()
        if suffix in TABLE_SUFFIXES:
            return TextFiles({self.split: [self.path]})
        if suffix != ".parquet":
            raise ValueError(f"unknown kind of file {file.suffix!r}; .parquet, {', '.join(sorted(TABLE_SUFFIXES))}")
        return datasets.load_dataset("parquet", data_files=str(file), split="train")

    def _refused(self, error: Exception) -> ValueError:
        """Puts an error into one line that names the data set, the broken file if there is one, and the cause."""
        cause: BaseException = error
        while type(cause).__name__.startswith("DatasetGeneration") and cause.__cause__ is not None:
            cause = cause.__cause__
        text = (str(cause) or type(cause).__name__).splitlines()[0]
        if isinstance(cause, ImportError) and "torchcodec" in text:
            text += "; or download its files and name their folder, which needs no torchcodec"
        broken = _broken_file(Path(self.path))
        place = f" ({broken})" if broken else ""
        return ValueError(f"HFDataset {self.path!r}, split {self.split!r}{place}: {text} (allowed: {_ALLOWED})")

    def _mapping(self, table: Table, answers_required: bool) -> dict[str, str]:
        """Maps our fields to their columns, for the fields that the table has.

        Raises:
            ValueError: If a named column, or one that every example needs, is missing.
        """
        present = table.columns
        for field, column in self.columns.items() if present else ():
            if column not in present and column.split(".")[0] not in present:
                raise ValueError(
                    f"HFDataset {self.path!r}: columns.{field}: no column {column!r} (allowed: {', '.join(present)})"
                )
        for option, columns in (("where", self.where), ("where_not", self.where_not)):
            for column in columns if present else ():
                if column.split(".")[0] not in present:
                    raise ValueError(
                        f"HFDataset {self.path!r}: {option}: no column {column!r} (allowed: {', '.join(present)})"
                    )
        mapping = {**{field: field for field in _FIELDS if field in present}, **self.columns}
        needed: list[tuple[str, ...]] = [("question",)] if self.question_required else []
        needed += [("answers", "target")] if answers_required else []
        for fields in needed if present else ():
            if not mapping.keys() & set(fields):
                raise ValueError(
                    f"HFDataset {self.path!r}: no column {fields[0]!r}; allowed: columns.{fields[0]} with one of "
                    f"{', '.join(present)}"
                )
        return mapping

    def _wanted(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a row is one of those to be read."""
        wanted = all(str(nested(row, column)) in _values(value) for column, value in self.where.items())
        return wanted and not any(
            str(nested(row, column)) in _values(value) for column, value in self.where_not.items()
        )

    def _record(self, row: Mapping[str, Any], columns: Mapping[str, str], index: int) -> dict[str, Any]:
        used = {column if column in row else column.split(".")[0] for column in columns.values()} | {*self.leave_out}
        record = {key: value for key, value in row.items() if key not in used and key not in _FIELDS}
        record["id"] = f"{self.name}/{self.split}/{index}"
        record |= {field: nested(row, column) for field, column in columns.items()}
        if isinstance(record.get("seconds"), str):  # of a CSV file
            record["seconds"] = _number(record["seconds"])
        return record


def _values(given: Any) -> list[str]:
    return [str(value) for value in (given if isinstance(given, list) else [given])]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _broken_file(path: Path) -> Path | None:
    """Finds the first file that cannot be opened: a parquet file, or one in a folder of parquet or ``save_to_disk``."""
    import pyarrow
    import pyarrow.parquet

    checks = {".parquet": pyarrow.parquet.read_schema, ".arrow": pyarrow.ipc.open_stream, ".json": _opened_json}
    for file in sorted({*path.glob("*"), *path.glob("*/*")}) if path.is_dir() else [path]:
        try:
            if (check := checks.get(file.suffix)) is not None:
                check(file)
        except (OSError, ValueError, pyarrow.ArrowException):
            return file
    return None


def _opened_json(file: Path) -> None:
    json_document(file, "JSON")


def _pick(splits: DatasetDict, split: str) -> Dataset:
    if split not in splits:
        raise ValueError(f"no split {split!r} among {', '.join(splits)}")
    return splits[split]

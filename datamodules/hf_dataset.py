"""Questions from a Hugging Face data set, by hub id or local folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bad_examples import BadExampleError, BadExamples
from .example import Audio, Example
from .manifest import ClipFinder
from .source import Source, build_example, without_duplicates

if TYPE_CHECKING:
    from datasets import Dataset

_FIELDS = ("id", "question", "answers", "target", "audio", "system", "seconds")
_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


@dataclass(frozen=True, eq=False)
class TableAudio:
    """A clip in a column of a data set: read when it is needed, by soundfile instead of torchcodec."""

    table: Dataset
    column: str
    index: int

    def read(self) -> bytes | Path:
        """The bytes of the clip's file, or its path where the table keeps only that."""
        cell = self.table[self.index][self.column]
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        return Path(cell["path"])


class HFDataset(Source):
    """A data set of the Hugging Face hub, a folder of ``save_to_disk``, or a parquet, JSON, JSONL or CSV file.

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
        self.name = Path(path).name

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Read all rows but not the clips (see ``Source.read``)."""
        table = self._load()
        columns = self._mapping(table)
        audio = columns.pop("audio", None)
        clips = self._clips(table, audio) if audio else None
        finder = ClipFinder(self.audio_root or Path())
        texts = table.remove_columns([name for name in table.column_names if _holds_clips(table, name)])
        examples = []
        for index, row in enumerate(texts):
            location = f"{self.path}[{self.split}]:{index}"
            try:
                record = self._record(row, columns, index)
                clip: Audio | None = TableAudio(clips, audio, index) if clips is not None and audio else None
                if audio and clips is None and (given := _nested(row, audio)) is not None:
                    clip = finder.find(given, location)
                examples.append(
                    build_example(record, clip, location, self.name, self.question_required, answers_required)
                )
            except BadExampleError as error:
                bad.report(error)
        return without_duplicates(examples, bad)

    def _load(self) -> Dataset:
        import datasets

        local = Path(self.path)
        try:
            if (local / "state.json").is_file():
                return datasets.load_from_disk(str(local))
            if (local / "dataset_dict.json").is_file():
                return _pick(datasets.load_from_disk(str(local)), self.split)
            if local.is_file():
                return self._load_file(local)
            return datasets.load_dataset(self.path, self.config, split=self.split, revision=self.revision)
        except (ConnectionError, FileNotFoundError, ValueError) as error:
            cause = str(error).splitlines()[0]
            raise ValueError(
                f"HFDataset {self.path!r}, split {self.split!r}: {cause} (allowed: a hub id that can be reached or is "
                "in the cache, a folder of save_to_disk, a folder or file of parquet, JSON or CSV)"
            ) from None

    def _load_file(self, file: Path) -> Dataset:
        import datasets

        if file.suffix not in _BUILDERS:
            raise ValueError(f"unknown kind of file {file.suffix!r}; {', '.join(_BUILDERS)}")
        return datasets.load_dataset(_BUILDERS[file.suffix], data_files=str(file), split="train")

    def _mapping(self, table: Dataset) -> dict[str, str]:
        """Our field -> their column, for the fields that the table has."""
        present = table.column_names
        for field, column in self.columns.items():
            if column.split(".")[0] not in present:
                raise ValueError(
                    f"HFDataset {self.path!r}: columns.{field}: no column {column!r} (allowed: {', '.join(present)})"
                )
        return {**{field: field for field in _FIELDS if field in present}, **self.columns}

    @staticmethod
    def _clips(table: Dataset, column: str) -> Dataset | None:
        """The audio column alone and undecoded, or None if it holds plain paths."""
        import datasets

        if column not in table.column_names or not _holds_clips(table, column):
            return None
        alone = table.select_columns([column])
        undecoded = datasets.Audio(decode=False)
        return alone.cast_column(column, undecoded) if isinstance(table.features[column], datasets.Audio) else alone

    def _record(self, row: Mapping[str, Any], columns: Mapping[str, str], index: int) -> dict[str, Any]:
        used = {column.split(".")[0] for column in columns.values()}
        record = {key: value for key, value in row.items() if key not in used and key not in _FIELDS}
        record["id"] = f"{self.name}/{self.split}/{index}"
        return record | {field: _nested(row, column) for field, column in columns.items()}


def _holds_clips(table: Dataset, column: str) -> bool:
    """Whether a column holds the content of audio files, which must not be read with the text."""
    import datasets

    feature = table.features[column]
    return isinstance(feature, datasets.Audio) or (isinstance(feature, dict) and {"bytes", "path"} <= set(feature))


def _nested(row: Mapping[str, Any], column: str) -> Any:
    """Follow the dots of a column name; None where a level is missing."""
    value: Any = row
    for key in [column] if column in row else column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _pick(splits: Any, split: str) -> Dataset:
    if split not in splits:
        raise ValueError(f"no split {split!r} among {', '.join(splits)}")
    return splits[split]

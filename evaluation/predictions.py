"""Per-item records of an evaluation: one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..foundation.files import write_json_lines
from ..foundation.json_lines import parse_json
from ..foundation.text_lines import text_lines


@dataclass(frozen=True)
class Prediction:
    """What the model answered to one question in one modality.

    Attributes:
        id: The item; its speech and text records share it.
        modality: ``"speech"`` or ``"text"``.
        question: The question as text.
        answers: Accepted spellings.
        prediction: The greedy response; None when nothing was generated.
        correct: Whether a gold answer occurs in the response; None when nothing was generated.
        loss: Mean cross-entropy of the target's tokens in nats; None when it was not measured.
        tokens: Number of tokens in that mean.
        shuffled_loss: The same loss with another item's clip instead of this one's (speech only).
        source: Data set the item comes from.
        category: The item's category in its data set, "" if it has none.
        exact: Whether the response equals a gold answer after SQuAD's normalisation.
        f1: SQuAD's token F1 of the response.
        choices: The options of multiple choice.
        scores: Log-likelihood of each option in nats.
        transcript: The transcript of a speech recogniser, if one was used in between.
        figures: What else an evaluation counts for an item (word errors, instructions followed).
    """

    id: str
    modality: str
    question: str = ""
    answers: tuple[str, ...] = ()
    prediction: str | None = None
    correct: bool | None = None
    loss: float | None = None
    tokens: int = 0
    shuffled_loss: float | None = None
    source: str = ""
    category: str = ""
    exact: bool | None = None
    f1: float | None = None
    choices: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    transcript: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


_FIELDS = {entry.name for entry in fields(Prediction)}


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Writes the records as JSON lines under a temporary name, then renames: a reader never sees half a file."""
    write_json_lines((asdict(prediction) for prediction in predictions), Path(path))


def read_predictions(path: str | Path) -> list[Prediction]:
    """Reads what :func:`write_predictions` wrote; keys it does not know are ignored.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is not such a record, with file and line.
    """
    return [_record(values, f"{path}:{number}") for number, values in read_lines(path)]


def _record(values: Mapping[str, Any], location: str) -> Prediction:
    known = {key: value for key, value in values.items() if key in _FIELDS}
    if missing := {"id", "modality"} - known.keys():
        raise ValueError(f"{location}: a prediction needs {', '.join(sorted(missing))}")
    listed = {key: tuple(known.get(key, ())) for key in ("answers", "choices", "scores")}
    return Prediction(**{**known, **listed})


def read_lines(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """Reads JSON objects, one per line, with their line numbers; empty lines are skipped.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is not a JSON object, with file and line.
    """
    rows = []
    # A model may write any character, including U+2028 and NUL: only "\n" ends a line, and no string is refused.
    for number, line in text_lines(path):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}:{number}")
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: a JSON object is expected, got {type(row).__name__}")
        rows.append((number, row))
    return rows

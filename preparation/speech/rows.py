"""The lines that are to be spoken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...foundation.json_lines import json_objects
from ...foundation.text_lines import plain_name

REJECTED_LINES = "rejected.jsonl"
"""In the output folder: lines of which no clip was good enough."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Questions:
    """A text manifest.

    Attributes:
        path: The file.
        rows: Its lines.
        places: Where each line stands ("val.jsonl:3").
    """

    path: Path
    rows: list[Row]
    places: list[str]

    @property
    def name(self) -> str:
        """Name of the manifest in the output folder."""
        return plain_name(self.path).name


def read_questions(paths: Sequence[Path]) -> list[Questions]:
    """Reads text manifests, one per path.

    Raises:
        FileNotFoundError: If a manifest is not there.
        ValueError: If a line is no JSON object with an id and a question, an id occurs twice, or two files
            have the same name.
    """
    manifests: dict[str, Questions] = {}
    first_seen: dict[str, str] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"speak: no such file: {path}")
        found = Questions(path, [], [])
        if found.name in manifests:
            raise ValueError(f"speak: two inputs are named {found.name}; the manifests in the output would be one file")
        manifests[found.name] = found
        for number, row in json_objects(path):
            place = f"{path}:{number}"
            _check(row, place, first_seen)
            found.rows.append(row)
            found.places.append(place)
    return list(manifests.values())


def _check(row: Row, place: str, first_seen: dict[str, str]) -> None:
    identity, question = row.get("id"), row.get("question")
    named = isinstance(identity, str | int) and not isinstance(identity, bool) and str(identity)
    if not named or not isinstance(question, str) or not question.strip():
        raise ValueError(f"{place}: a line must be an object with an id and a question")
    key = str(identity)
    if key in first_seen:
        raise ValueError(f"{place}: id {key!r} was already used in {first_seen[key]}")
    first_seen[key] = place

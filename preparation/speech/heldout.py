"""Which lines belong to the held-out voices: those for validation and test."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ...foundation.json_lines import json_objects
from ...foundation.text_lines import plain_name
from .plan import Cast
from .rows import REJECTED_LINES, Questions, Row

TRAINING = frozenset({"train", "training"})
HELDOUT = frozenset({"validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "test"})
"""Words in a file's name or a line's ``split`` that tell what the questions are for."""

_ALLOWED = (
    '"split" with train, validation or test, a file name with such a word (val.jsonl), or --heldout-files with the '
    "inputs for validation and test"
)


def heldout_ids(manifests: Sequence[Questions], files: Collection[str] = ()) -> frozenset[str]:
    """Finds the ids of the lines for validation and test, which only the held-out voices may speak.

    A line's ``split`` says it, and where there is none the name of its file.

    Args:
        manifests: The inputs.
        files: Names or paths of the inputs that are for validation and test, whatever their lines and names say; all
            others are for training then.

    Raises:
        ValueError: If no input has that name, nothing says what a line is for, or its ``split`` and the name
            of its file say opposite things.
    """
    if files:
        unknown = set(files).difference(*(_names(found) for found in manifests))
        if unknown:
            inputs = ", ".join(str(found.path) for found in manifests)
            raise ValueError(
                f"speak: --heldout-files: {', '.join(sorted(unknown))} is not an input (allowed: {inputs})"
            )
        return frozenset(str(row["id"]) for m in manifests if _names(m) & set(files) for row in m.rows)
    return frozenset(
        str(row["id"])
        for found in manifests
        for row, place in zip(found.rows, found.places, strict=True)
        if _is_heldout(row, found.name, place)
    )


def require_unseen(folder: Path, cast: Cast, manifests: Sequence[Questions]) -> None:
    """Refuses voices that earlier manifests of the output folder use for the other purpose.

    Args:
        folder: Output folder.
        cast: The speakers.
        manifests: The inputs; manifests of their names are made anew.

    Raises:
        ValueError: If a held-out voice speaks a training line there, or a training voice one that is held out.
    """
    names = {REJECTED_LINES, *(found.name for found in manifests)}
    trains = any(str(row["id"]) not in cast.heldout_ids for found in manifests for row in found.rows)
    voices = {str(voice) for voice in cast.voices if trains}
    heldout = {str(voice) for voice in cast.heldout}
    for file in sorted(folder.glob("[!.]*.jsonl")):
        for number, row in json_objects(file) if file.name not in names else ():
            by_line, by_file = _sides(row, file.name)
            side = by_file if by_line is None else by_line
            voice = str(row.get("voice"))
            if side is not None and voice in (voices if side else heldout):
                purpose, option = ("validation or test", "--voices") if side else ("training", "--heldout-voices")
                allowed = "voices that are heard on one side only, or another output folder"
                told = f"is for {purpose} and spoken by {voice}, which {option} names too"
                raise ValueError(f"speak: {file}:{number} {told}; allowed: {allowed}")


def _names(found: Questions) -> set[str]:
    return {str(found.path), found.path.name, found.name}


def _is_heldout(row: Row, file: str, place: str) -> bool:
    by_line, by_file = _sides(row, file)
    if by_line is None and by_file is None:
        split = f'"split" {row["split"]!r}' if row.get("split") else 'no "split"'
        told = f"{split} and the name {file} do not tell training from test"
        raise ValueError(f"speak: {place}: {told}; allowed: {_ALLOWED}")
    if by_line is not None and by_file is not None and by_line != by_file:
        raise ValueError(f'speak: {place}: "split" is {row["split"]!r} in a file named {file}; allowed: {_ALLOWED}')
    return bool(by_file if by_line is None else by_line)


def _sides(row: Row, file: str) -> tuple[bool | None, bool | None]:
    """Returns what a line's ``split`` and its file's name say."""
    return _told(row.get("split")), _told(plain_name(file).stem)


def _told(text: Any) -> bool | None:
    """Returns by a name: True for validation or test, False for training, None for neither or both."""
    words = set(re.findall("[a-z]+", str(text or "").lower()))
    heldout, training = bool(words & HELDOUT), bool(words & TRAINING)
    return heldout if heldout != training else None

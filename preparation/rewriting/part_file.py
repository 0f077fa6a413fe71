"""Answers written so far: a file from which an interrupted command continues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from ...foundation.errors import UserError


@dataclass(frozen=True)
class Answer:
    """What the LLM wrote.

    Attributes:
        id: The question's.
        question: Its text: an answer to another wording is not taken.
        text: The answer.
        ended: Whether the LLM ended it itself, before the longest length.
    """

    id: str
    question: str
    text: str
    ended: bool


class PartFile:
    """``NEW.jsonl.part``: the settings on its first line, then one answer per line, written as they come.

    Args:
        path: The file.
        settings: What the answers depend on.

    Raises:
        UserError: If the file was begun with other settings, or was not written by this command.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        if path.is_file():
            self._continue(dict(settings))
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
        if path.stat().st_size == 0:
            self._file.write(json.dumps({"settings": dict(settings)}, ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.answers:  # nothing to continue from
            self.path.unlink(missing_ok=True)

    def answer(self, identity: str, question: str) -> Answer | None:
        """Returns the answer to a question, if there is one."""
        found = self.answers.get(identity)
        return found if found is not None and found.question == question else None

    def add(self, answers: Iterable[Answer]) -> None:
        """Writes answers down at once."""
        for answer in answers:
            self.answers[answer.id] = answer
            self._file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")

    def _continue(self, settings: dict[str, Any]) -> None:
        """Reads the existing records; half a line at the end, left by a kill, is cut off."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        if not whole:
            return
        try:
            # An answer may hold any character but "\n", U+2028 too: other ends of lines do not count.
            lines = whole.decode("utf-8").removesuffix("\n").split("\n")
            begun = json.loads(lines[0])["settings"]
            self.answers = {answer.id: answer for answer in (Answer(**json.loads(line)) for line in lines[1:])}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"rewrite: {self.path} was not written by this command; remove or rename it") from None
        other = [key for key in settings if begun.get(key) != settings[key]]
        if other:
            changes = ", ".join(f"{key} {begun.get(key)!r}, now {settings[key]!r}" for key in other)
            raise UserError(f"rewrite: {self.path} was begun with {changes}; remove it to begin again")

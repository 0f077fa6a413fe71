"""JSONL manifests: one question a line, clips beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .bad_examples import BadExampleError, BadExamples
from .example import Example
from .source import Source, build_example, without_duplicates


class Manifest(Source):
    """A JSONL file of text or spoken questions.

    A line: ``{"id": "q1", "question": "What is the capital of France?", "answers": ["Paris"], "target": "Paris.",
    "audio": "clips/q1.ogg", "system": null, "source": "facts", "seconds": 2.1, ...}``. ``target`` defaults to the
    first answer; ``audio`` is relative to the manifest's folder and must stay under it; a line without it is a text
    question; ``seconds`` saves opening the clip to learn its length; every other key is kept as metadata.

    Args:
        path: The manifest.
        audio_root: Folder that ``audio`` is relative to; default the manifest's folder.
        use_audio: False reads the questions as text only.
    """

    def __init__(self, path: str, audio_root: str | None = None, use_audio: bool = True) -> None:
        self.path = Path(path)
        self.audio_root = Path(audio_root) if audio_root else self.path.parent
        self.use_audio = use_audio
        self.name = self.path.stem

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Read all lines (see ``Source.read``)."""
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such manifest (allowed: a JSONL file, one question a line)")
        finder = ClipFinder(self.audio_root)
        examples = []
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    examples.append(self._example(line, f"{self.path}:{number}", finder, answers_required))
                except BadExampleError as error:
                    bad.report(error)
        return without_duplicates(examples, bad)

    def _example(self, line: str, location: str, finder: ClipFinder, answers_required: bool) -> Example:
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            detail = f"not JSON ({error}); allowed: one object a line"
            raise BadExampleError("bad json", location, detail) from None
        if not isinstance(record, dict):
            detail = f"a JSON {type(record).__name__}; allowed: one object a line"
            raise BadExampleError("bad json", location, detail)
        given = record.get("audio") if self.use_audio else None
        audio = finder.find(given, location) if given is not None else None
        return build_example(record, audio, location, self.name, answers_required=answers_required)


class ClipFinder:
    """Finds clips under a folder, with one directory listing per folder instead of one look-up per clip.

    Args:
        root: Clips must lie under it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = os.path.abspath(root) + os.sep
        self._listings: dict[str, set[str]] = {}

    def find(self, given: object, location: str) -> Path:
        """The clip's path.

        Raises:
            BadExampleError: If it is no text, leads out of the folder, or does not exist.
        """
        if not isinstance(given, str) or not given:
            detail = f'"audio" is {given!r}; allowed: a path relative to {self.root}'
            raise BadExampleError("wrong type", location, detail)
        path = os.path.normpath(os.path.join(self._prefix, given))
        if not path.startswith(self._prefix):
            detail = f'"audio" {given!r} leads out of {self.root}; allowed: a path under it'
            raise BadExampleError("path outside its root", location, detail)
        folder, name = os.path.split(path)
        if folder not in self._listings:
            self._listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in self._listings[folder]:
            detail = f'"audio" {given!r} does not exist under {self.root}; allowed: an existing file'
            raise BadExampleError("missing file", location, detail)
        return Path(path)

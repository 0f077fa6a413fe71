"""JSONL manifests: one question per line, clips beside it."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...foundation.json_lines import json_objects
from ...foundation.text_lines import plain_name
from .bad_examples import BadExampleError, BadExamples
from .example import Example
from .source import Source, build_example, without_duplicates


class Manifest(Source):
    """A JSONL file of text or spoken questions.

    A line: ``{"id": "q1", "question": "What is the capital of France?", "answers": ["Paris"], "target": "Paris.",
    "audio": "clips/q1.ogg", "system": null, "source": "facts", "seconds": 2.1, ...}``. ``target`` defaults to the
    first answer; ``audio`` is relative to the manifest's folder and must stay under it; a line without it is a text
    question; ``seconds`` saves opening the clip to learn its length; every other key is kept as metadata. An answer may
    be a number; it is learned as its text.

    Args:
        path: The manifest, in UTF-8, plain or compressed with gzip.
        audio_root: Folder that ``audio`` is relative to; default the manifest's folder.
        use_audio: False reads the questions as text only.
    """

    def __init__(self, path: str, audio_root: str | None = None, use_audio: bool = True) -> None:
        self.path = Path(path)
        self.audio_root = Path(audio_root) if audio_root else self.path.parent
        self.use_audio = use_audio
        self.name = plain_name(path).stem

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Reads all lines."""
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such manifest (allowed: a JSONL file, one question per line)")
        finder = ClipFinder(self.audio_root)
        examples = []
        for number, record in json_objects(self.path, bad.report):
            try:
                examples.append(self._example(record, f"{self.path}:{number}", finder, answers_required))
            except BadExampleError as error:
                bad.report(error)
        return without_duplicates(examples, bad)

    def _example(self, record: Mapping[str, Any], location: str, finder: ClipFinder, answers_required: bool) -> Example:
        given = record.get("audio") if self.use_audio else None
        audio = finder.find(given, location) if given is not None else None
        return build_example(record, audio, location, self.name, answers_required=answers_required)


class ClipFinder:
    """Finds clips under a folder, with one directory listing per folder instead of one look-up per clip.

    A name is found in whatever form of Unicode it was written down: "é" is one character in most texts (NFC), and two
    on a disk that a Mac has written (NFD).

    Args:
        root: Clips must lie under it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = os.path.abspath(root).rstrip(os.sep) + os.sep
        self._listings: dict[str, dict[str, str]] = {}
        self._folders: dict[str, str | None] = {os.path.abspath(root): os.path.abspath(root)}

    def find(self, given: object, location: str) -> Path:
        """Finds the clip's path.

        Raises:
            BadExampleError: If it is not a text, leads out of the folder, or does not exist.
        """
        if not isinstance(given, str) or not given:
            detail = f'"audio" is {given!r}; allowed: a path relative to {self.root}'
            raise BadExampleError("wrong type", location, detail)
        path = os.path.normpath(os.path.join(self._prefix, given))
        if not path.startswith(self._prefix):
            detail = f'"audio" {given!r} leads out of {self.root}; allowed: a path under it'
            raise BadExampleError("path outside its root", location, detail)
        folder, name = os.path.split(path)
        found = self._entry(self._folder(folder), name)
        if found is None:
            detail = f'"audio" {given!r} does not exist under {self.root}; allowed: an existing file'
            raise BadExampleError("missing file", location, detail)
        return Path(found)

    def _folder(self, given: str) -> str | None:
        """Finds the folder on the disk that a path under the root means, or None."""
        if given not in self._folders:
            above, name = os.path.split(given)
            self._folders[given] = self._entry(self._folder(above), name)
        return self._folders[given]

    def _entry(self, folder: str | None, name: str) -> str | None:
        """Finds a name in a folder: exactly so, or else in another form of Unicode, if only one is there."""
        if folder is None:
            return None
        if folder not in self._listings:
            self._listings[folder] = _names(folder)
        names = self._listings[folder]
        found = names.get(name) or names.get(unicodedata.normalize("NFC", name))
        return os.path.join(folder, found) if found else None


def _names(folder: str) -> dict[str, str]:
    """Lists a folder's entries by their names, and by the NFC of these where that is not ambiguous."""
    listed = os.listdir(folder) if os.path.isdir(folder) else []
    composed = {name: unicodedata.normalize("NFC", name) for name in listed}
    times = Counter(composed.values())
    return {nfc: name for name, nfc in composed.items() if times[nfc] == 1} | {name: name for name in listed}

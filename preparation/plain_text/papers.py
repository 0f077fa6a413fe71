"""Speeches, entries of a lexicon and chapters of a manual."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from typing_extensions import override

from .document import Document, one_line

_ENTRY = re.compile(r"\n(?=\S)")


def speeches(folder: Path) -> Iterator[Document]:
    """Reads the State of the Union addresses, one JSON file each."""
    for path in sorted(folder.glob("*.json")):
        speech = json.loads(path.read_text(encoding="utf-8"))
        source = f"{speech['name']}, State of the Union address, {speech['year']}"
        yield Document("speech", source, tuple(one_line(part) for part in speech["text"].split("\n") if part.strip()))


def jargon(path: Path) -> Iterator[Document]:
    """Reads the entries of the Jargon File: a head at the margin, then indented paragraphs."""
    text = gzip.decompress(path.read_bytes()).decode()
    for entry in _ENTRY.split(text):
        head, _, body = entry.partition("\n")
        paragraphs = (one_line(part) for part in re.split(r"\n\s*\n", re.sub(r"\{\s*|\s*\}", "", body)))
        yield Document("reference", f"The Jargon File 4.4.7, “{head.strip()}”", tuple(paragraphs))


def rust_book(folder: Path) -> Iterator[Document]:
    """Reads the chapters of The Rust Programming Language, one HTML file each."""
    for path in sorted(folder.glob("ch*.html")):
        reader = _Paragraphs()
        reader.feed(path.read_text(encoding="utf-8"))
        place = ".".join(str(int(part)) for part in re.findall(r"\d+", path.stem)[:2])
        yield Document("technical", f"The Rust Programming Language (2022), section {place}", tuple(reader.found))


class _Paragraphs(HTMLParser):
    """Collects the paragraphs of prose; a block of code, a list or a heading between two ends nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] | None = None

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p":
            self._open = []

    @override
    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self._open is not None:
            self.found.append(one_line("".join(self._open)))
            self._open = None

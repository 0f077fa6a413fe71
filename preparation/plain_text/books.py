"""Chapters of novels and experiments of a treatise."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from .document import Document, one_line

_CHAPTER = re.compile(r"^CHAPTER [IVXLC\d]+\.?$", re.IGNORECASE | re.MULTILINE)
_VECTOR = re.compile(rb"\x00\x00\x00\x10....", re.DOTALL)  # of strings: its type and length
_STRING = re.compile(rb"\x00..\x09(....)", re.DOTALL)  # a string: its encoding and type, then its length
_NOVELS = {
    "EMMA": "Emma",
    "MANSFIELD PARK": "Mansfield Park",
    "NORTHANGER ABBEY": "Northanger Abbey",
    "PERSUASION": "Persuasion",
    "PRIDE AND PREJUDICE": "Pride and Prejudice",
    "SENSE AND SENSIBILITY": "Sense and Sensibility",
}
_SECTION = re.compile(r"^_(PROP|Exper|Obs|Qu)\._ ([IVXLC]+|\d+)\.(?: (?:THEOR|PROB)\. [IVXLC]+\.)?", re.MULTILINE)
_NAMES = {"PROP": "proposition", "Exper": "experiment", "Obs": "observation", "Qu": "query"}
_NOTE = re.compile(r"\[[^\]]*\]")


def melville(folder: Path) -> Iterator[Document]:
    """Reads the chapters of Moby-Dick, one JSON file each."""
    for path in sorted(folder.glob("chapter_*.json"), key=lambda path: int(path.stem.split("_")[1])):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        source = f"Herman Melville, Moby-Dick (1851), chapter {chapter['chapter']}"
        yield Document("fiction", source, tuple(one_line(part) for part in chapter["text"].split("\n\n")))


def austen(path: Path) -> Iterator[Document]:
    """Reads the chapters of six novels out of the data base of an R package.

    Such a file is a row of objects, each four bytes of length and a zlib stream of R's serialisation (R Internals,
    1.8); of that, only the strings of a vector are read, a line of the book each.
    """
    data, place = path.read_bytes(), 0
    while place < len(data):
        stream = zlib.decompressobj()
        lines = _strings(stream.decompress(data[place + 4 :]))
        place = len(data) - len(stream.unused_data)
        title = _NOVELS[lines[0].strip().upper()]
        for number, chapter in enumerate(_CHAPTER.split("\n".join(lines))[1:], start=1):
            source = f"Jane Austen, {title} (1811 to 1818), chapter {number} of all volumes"
            yield Document("fiction", source, tuple(one_line(part) for part in chapter.split("\n\n")))


def _strings(data: bytes) -> list[str]:
    strings: list[str] = []
    vector = _VECTOR.search(data)
    place = vector.end() if vector else len(data)
    while match := _STRING.match(data, place):
        length = int.from_bytes(match[1], "big")
        strings.append(data[match.end() : match.end() + length].decode())
        place = match.end() + length
    return strings


def newton(path: Path) -> Iterator[Document]:
    """Reads the propositions, experiments, observations and queries of Newton's Opticks."""
    text = path.read_text(encoding="utf-8")
    starts = list(_SECTION.finditer(text))
    for number, (match, end) in enumerate(zip(starts, [*(m.start() for m in starts[1:]), len(text)], strict=True)):
        place = f"section {number + 1} ({_NAMES[match[1]]} {match[2]})"
        body = _NOTE.sub("", text[match.end() : end]).replace("_", "")
        paragraphs = tuple(one_line(part) for part in re.split(r"\n\s*\n", body))
        yield Document("science", f"Isaac Newton, Opticks (4th edition, 1730), {place}", paragraphs)

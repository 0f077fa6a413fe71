"""A piece of a work that a passage can be taken from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A chapter, a speech, an experiment or an entry.

    Attributes:
        kind: Of prose ("fiction").
        source: Work and place in it.
        paragraphs: Each one line.
    """

    kind: str
    source: str
    paragraphs: tuple[str, ...]


def one_line(text: str) -> str:
    """Writes a paragraph as one line, with a single space for each break."""
    return " ".join(text.split())

"""Passages of prose, cut between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .document import Document

WORDS = (90, 170)
"""Fewest and most words of a passage."""
SHARED = 8
"""Words in a row that two passages may not share: a quotation, a formula of a speech, the same text twice."""
_CLOSING = "[\u201d\u2019\"')]"
_END = re.compile(rf"(?<=[.!?])\s+(?=[A-Z\u201c\"])|(?<=[.!?]{_CLOSING})\s+(?=[A-Z\u201c\"])")
_SHORT_FORM = re.compile(r"(?:\b(?:Mr|Mrs|Dr|St|Col|Capt|No|Fig|vs|cf|viz|ibid|[A-Z])|\be\.g|\bi\.e)\.$")
_WHOLE = re.compile(rf"[A-Z\u201c\"].*[^\W\d]{_CLOSING}?[.!?]{_CLOSING}?", re.DOTALL)
_PROSE = 0.965  # of the characters are letters, spaces and the points and commas between sentences
_MARKS = frozenset(" .,;'\u2019")
_FOREIGN = re.compile(
    r"https?:|www\.|[{}<>|_=*#@\\]|\d[\d,.]*\d{3}|[A-Z]{3,} [A-Z]{3,}|[^\x00-\x7f\u2018\u2019\u201c\u201d\u2013\u2014é]"
)


def passages(document: Document) -> Iterator[str]:
    """Yields passages of whole sentences, none of which overlap; paragraphs in one are divided by an empty line."""
    held: list[str] = []
    words = 0
    for joint, sentence in _sentences(document):
        held += [joint if held else "", sentence]
        words += len(sentence.split())
        if words < WORDS[0]:
            continue
        text = "".join(held)
        if words <= WORDS[1] and _is_prose(text):
            yield text
        held, words = [], 0


def word_runs(text: str) -> set[tuple[str, ...]]:
    """Returns all runs of ``SHARED`` words of a text, in lower case and without marks."""
    words = re.findall(r"[a-z]+", text.lower())
    return {tuple(words[start : start + SHARED]) for start in range(len(words) - SHARED + 1)}


def _sentences(document: Document) -> Iterator[tuple[str, str]]:
    """Yields each sentence with what joins it to the one before: an empty line between paragraphs, else a space."""
    for paragraph in document.paragraphs:
        joint, held = "\n\n", ""
        for piece in _END.split(paragraph):
            held = f"{held} {piece}" if held else piece
            if _SHORT_FORM.search(held):
                continue
            yield joint, held
            joint, held = " ", ""
        if held:
            yield joint, held


def _is_prose(text: str) -> bool:
    """Returns whether a passage is sentences and nothing else, from its first letter to its last point."""
    plain = sum(mark.isalpha() or mark in _MARKS for mark in text)
    return bool(_WHOLE.fullmatch(text)) and plain >= _PROSE * len(text) and not _FOREIGN.search(text)

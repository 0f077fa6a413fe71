"""The embedded sets of plain text, out of the works that they are taken from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..spoken_facts.draws import stable_hash
from .books import austen, melville, newton
from .document import Document
from .papers import jargon, rust_book, speeches
from .passages import passages, word_runs

HALVES = ("probe", "evaluation")
REHEARSAL = "rehearsal"
SETS = (*HALVES, REHEARSAL)
EACH = 30
"""Passages of a kind in a half."""
REHEARSED = 20
"""Passages of a kind in the set that training may read."""

Row = dict[str, Any]


def read_works(folder: Path) -> list[list[Document]]:
    """Reads all works from the folder that ``textkeep assets prose-sources`` makes, one list per kind.

    Raises:
        FileNotFoundError: If one is not there.
    """
    kinds = (
        chain(melville(folder / "moby-dick"), austen(folder / "janeaustenr.rdb")),
        speeches(folder / "state-of-the-union"),
        newton(folder / "opticks.txt"),
        jargon(folder / "jargon.dict.dz"),
        rust_book(folder / "rust-book"),
    )
    return [list(kind) for kind in kinds]


def plain_text_sets(
    works: Sequence[Sequence[Document]], each: int = EACH, rehearsed: int = REHEARSED
) -> dict[str, list[Row]]:
    """Draws the passages of all sets by hash, no two of them from the same document or with the same words in a row.

    The documents of a kind fall to the halves in turn, so both hold all kinds alike; the text to rehearse is drawn of
    what they leave. The kinds alternate in a set: its first passages are as mixed as the whole.

    Args:
        works: Documents, a list a kind.
        each: Passages of a kind in a half.
        rehearsed: Passages of a kind to rehearse.

    Raises:
        ValueError: If a kind has too few.
    """
    seen: set[tuple[str, ...]] = set()
    streams = [_drawn(documents, seen) for documents in works]
    halves = [list(islice(stream, each * len(HALVES))) for stream in streams]
    rest = [list(islice(stream, rehearsed)) for stream in streams]
    wanted = each * len(HALVES) + rehearsed
    for documents, half, more in zip(works, halves, rest, strict=True):
        if len(half) + len(more) < wanted:
            kind = documents[0].kind if documents else "a kind"
            raise ValueError(f"plain text: {len(half) + len(more)} passages of {kind}; allowed: at least {wanted}")
    sets = {name: [column[place :: len(HALVES)] for column in halves] for place, name in enumerate(HALVES)}
    return {name: _alternating(name, columns) for name, columns in (sets | {REHEARSAL: rest}).items()}


def _alternating(name: str, columns: Sequence[Sequence[tuple[Document, str]]]) -> list[Row]:
    """Returns the rows of a set, a passage of each kind in turn."""
    return [
        {"id": f"{column[row][0].kind}-{name}-{row + 1:02d}", **_row(*column[row])}
        for row in range(len(columns[0]))
        for column in columns
    ]


def _drawn(documents: Sequence[Document], seen: set[tuple[str, ...]]) -> Iterator[tuple[Document, str]]:
    """Takes a passage of each document; notes in ``seen`` the runs of words of those taken."""
    for document in sorted(documents, key=lambda d: stable_hash(f"document {d.source}")):
        for text in sorted(passages(document), key=lambda text: stable_hash(f"passage {text}")):
            if (runs := word_runs(text)) & seen:
                continue
            seen |= runs
            yield document, text
            break


def _row(document: Document, text: str) -> Row:
    return {"text": text, "kind": document.kind, "source": document.source}

"""The two embedded sets of plain text, out of the works that they are taken from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..spoken_facts.draws import stable_hash
from .books import austen, melville, newton
from .document import Document
from .papers import jargon, rust_book, speeches
from .passages import passages, word_runs

SETS = ("probe", "evaluation")
EACH = 30
"""Passages of a kind in a set."""

Row = dict[str, Any]


def read_works(folder: Path) -> list[list[Document]]:
    """Reads all works from the folder that ``textkeep assets prose-sources`` makes, a list a kind.

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


def plain_text_sets(works: Sequence[Sequence[Document]], each: int = EACH) -> dict[str, list[Row]]:
    """Draws the passages of both sets by hash, no two of them from the same document or with the same words in a row.

    The documents of a kind fall to the sets in turn, so both hold all kinds alike. The kinds alternate in a set: its
    first passages are as mixed as the whole.

    Args:
        works: Documents, a list a kind.
        each: Passages of a kind in a set.

    Raises:
        ValueError: If a kind has too few.
    """
    seen: set[tuple[str, ...]] = set()
    columns = []
    for documents in works:
        drawn = list(_drawn(documents, each * len(SETS), seen))
        if len(drawn) < each * len(SETS):
            kind = documents[0].kind if documents else "a kind"
            raise ValueError(f"plain text: {len(drawn)} passages of {kind}; allowed: at least {each * len(SETS)}")
        columns.append(drawn)
    return {
        name: [
            {"id": f"{column[row][0].kind}-{name}-{row // len(SETS) + 1:02d}", **_row(*column[row])}
            for row in range(half, each * len(SETS), len(SETS))
            for column in columns
        ]
        for half, name in enumerate(SETS)
    }


def _drawn(documents: Sequence[Document], most: int, seen: set[tuple[str, ...]]) -> Iterator[tuple[Document, str]]:
    """Takes a passage of each document until there are enough; notes in ``seen`` the runs of words of those taken."""
    taken = 0
    for document in sorted(documents, key=lambda d: stable_hash(f"document {d.source}")):
        for text in sorted(passages(document), key=lambda text: stable_hash(f"passage {text}")):
            if (runs := word_runs(text)) & seen:
                continue
            seen |= runs
            yield document, text
            taken += 1
            if taken == most:
                return
            break


def _row(document: Document, text: str) -> Row:
    return {"text": text, "kind": document.kind, "source": document.source}

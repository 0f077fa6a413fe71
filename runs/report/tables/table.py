"""A table of a page, and its Markdown form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

DASH = "-"
"""The content of an empty cell."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Caption.
        head: Column titles.
        rows: Cells.
        note: Below the table.
        folded: More rows, which a page shows when asked to.
        fold: What they are.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    folded: list[list[str]] = field(default_factory=list)
    fold: str = ""


def as_markdown(tables: Sequence[Table]) -> str:
    """Formats tables as Markdown."""
    parts = []
    for table in tables:
        lines = [f"**{table.title}**", "", _line(table.head), _line(["---"] * len(table.head))]
        lines += [_line(row) for row in table.rows]
        parts.append("\n".join([*lines, "", table.note]).strip())
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

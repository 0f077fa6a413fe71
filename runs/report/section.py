"""The building blocks of a page: sections with figures and tables, and selections among the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from .figures.figure import OWN, Figure
from .tables.table import Table

Data = TypeVar("Data")
Part = Figure | Table
Made = Part | Sequence[Part] | None
"""The result of one file of ``figures`` or ``tables``: one or several parts, or none if there are no data."""


@dataclass(frozen=True)
class Section:
    """A heading with figures and tables.

    Attributes:
        title: Heading.
        intro: Below it.
        parts: In the order of the page.
        missing: Why there are no figures.
    """

    title: str
    intro: str
    parts: list[Part]
    missing: str = ""

    @property
    def figures(self) -> list[Figure]:
        """Its figures."""
        return [part for part in self.parts if isinstance(part, Figure)]

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [part for part in self.parts if isinstance(part, Table)]

    @property
    def groups(self) -> list[tuple[bool, list[Part]]]:
        """Groups of adjacent figures, shown side by side, or of tables; true for figures."""
        kinds = groupby(self.parts, lambda part: isinstance(part, Figure))
        return [(figures, list(parts)) for figures, parts in kinds]

    @property
    def choices(self) -> dict[str, dict[str, str]]:
        """Selection -> value -> text, of the selections that its figures share."""
        found: dict[str, dict[str, str]] = {}
        for figure in self.figures:
            for name, values in figure.choices.items():
                if name != OWN:
                    found.setdefault(name, {}).update(values)
        return found

    @property
    def steps(self) -> list[int]:
        """Stops of its slider; no slider is shown for fewer than two."""
        return sorted({step for figure in self.figures for step in figure.steps})


@dataclass(frozen=True)
class Chapter(Generic[Data]):
    """The definition of a section: its figures and tables. To add one, list its function here.

    Attributes:
        title: Heading.
        parts: Functions of the page's data.
        intro: Below the heading.
        missing: Shown if no part has anything to show; without it, such a section is left out.
    """

    title: str
    parts: tuple[Callable[[Data], Made], ...]
    intro: str = ""
    missing: str | Callable[[Data], str] = ""

    def of(self, data: Data) -> Section | None:
        """Builds the section; None if there is nothing to show or say."""
        parts: list[Part] = []
        for part in self.parts:
            made = part(data)
            parts += [made] if isinstance(made, Figure | Table) else made or []
        missing = self.missing if isinstance(self.missing, str) else self.missing(data)
        words = "" if any(isinstance(part, Figure) for part in parts) else missing
        return Section(self.title, self.intro, parts, words) if parts or words else None


def sections_of(chapters: Sequence[Chapter[Data]], data: Data) -> list[Section]:
    """Builds the sections that have something to show or say."""
    return [section for chapter in chapters if (section := chapter.of(data)) is not None]

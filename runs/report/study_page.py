"""``textkeep report STUDY_DIR``: a study's tables on the terminal, as Markdown, and on a page with its figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ...foundation.files import write_json
from .figures.figure import Figure
from .figures.files import write_figures
from .figures.frontier_by_arm import frontier_by_arm
from .figures.importance_change import importance_by_arm, importance_by_kind
from .figures.overlap import overlap
from .figures.profile_by_arm import profile_by_arm
from .figures.shift_and_loss import shift_and_loss
from .figures.shift_by_arm import shift_by_arm
from .figures.weight_change import change_by_arm, change_by_kind
from .page import part, render
from .page_file import write_page
from .section import Chapter, Section, sections_of
from .study_data import StudyData, load_study
from .study_headline import headline_part
from .tables.contrasts import contrast_table
from .tables.differences import against_reference, against_untouched
from .tables.grid import grid_table
from .tables.missing import missing_table
from .tables.overlap import overlap_table
from .tables.removal import removal_table
from .tables.scores_by_arm import scores_table
from .tables.shift import shift_table
from .tables.shift_and_loss import correlation_table
from .tables.table import Table, as_markdown

MARKDOWN, NUMBERS = "tables.md", "tables.json"

CHAPTERS: tuple[Chapter[StudyData], ...] = (
    Chapter("Scores", (scores_table, frontier_by_arm, against_reference, against_untouched, contrast_table)),
    Chapter("Importance", (shift_table, shift_by_arm, profile_by_arm, importance_by_arm, importance_by_kind)),
    Chapter("Shift against loss", (correlation_table, shift_and_loss)),
    Chapter("Weights", (change_by_arm, change_by_kind, overlap_table, overlap, removal_table)),
    Chapter("Runs", (grid_table, missing_table)),
)
"""The sections, in the order of the page."""


class StudyReport:
    """The page of a study, and its tables as Markdown and JSON.

    Args:
        path: Directory of a study.

    Attributes:
        sections: With its figures and tables.
        notes: What could not be shown, and why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = load_study(path)
        self.sections: list[Section] = sections_of(CHAPTERS, self._data)
        self.notes = self._data.notes

    @property
    def tables(self) -> list[Table]:
        """Its tables, in the order of the page."""
        return [table for section in self.sections for table in section.tables]

    @property
    def figures(self) -> list[Figure]:
        """Its figures, in the order of the page."""
        return [figure for section in self.sections for figure in section.figures]

    def write(self, page: Path) -> None:
        """Writes the page, and the tables beside it as Markdown and JSON."""
        write_page(self._page(), page, [self._path])
        write_page(as_markdown(self.tables), page.with_name(MARKDOWN))
        write_json([asdict(table) for table in self.tables], page.with_name(NUMBERS))

    def write_figures(self, folder: Path) -> int:
        """Writes the figures as SVG files, and returns how many.

        Raises:
            UserError: If no renderer is available.
        """
        return len(write_figures(self.figures, folder))

    def _page(self) -> str:
        study = self._data.study
        return render(
            study.directory.resolve().name,
            "study",
            self.sections,
            before=headline_part(self._data) + part("notes", notes=self.notes),
            after=part("plan", plan=study.text),
        )

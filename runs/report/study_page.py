"""``textkeep report STUDY_DIR``: a study's tables on the terminal, as Markdown, and on a page with its figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from ...foundation.files import write_json
from ..study.spec import UNTOUCHED
from .figures.figure_files import write_figures
from .figures.figure_style import rounded
from .figures.study_correlation import correlation_figure, correlation_table
from .figures.study_figures import frontier, profiles
from .figures.study_heat_maps import change_by_arm, change_by_kind, importance_by_arm, importance_by_kind
from .figures.study_overlap import overlap_figure, overlap_table
from .figures.study_shift import shift_figure, shift_table
from .page import TEMPLATES, as_json, packed_plotly, script
from .page_file import write_page
from .study_data import StudyData, load_study
from .tables.comparison import Table
from .tables.study_contrasts import contrast_table
from .tables.study_grid import grid_table, missing_table
from .tables.study_removal import removal_table
from .tables.study_tables import as_markdown, difference_table, scores_table

MARKDOWN, NUMBERS = "tables.md", "tables.json"


@dataclass(frozen=True)
class Figure:
    """A figure with its heading.

    Attributes:
        title: Above it.
        drawn: Plotly's.
        note: Below it.
    """

    title: str
    drawn: Any
    note: str = ""


def study_parts(data: StudyData) -> list[Table | Figure]:
    """What the study's runs give, in the order of the page."""
    return [part for part in _parts(data) if part is not None and getattr(part, "drawn", part) is not None]


def _parts(data: StudyData) -> Iterator[Table | Figure | None]:
    yield scores_table(data)
    yield Figure(
        "Text kept against speech gained",
        frontier(data),
        "95 % intervals over seeds and items; of an arm with one seed over items only.",
    )
    yield difference_table(data, data.study.reference)
    yield difference_table(data, UNTOUCHED)
    yield contrast_table(data)
    yield shift_table(data)
    note = "Rings: single runs. The bar: what another probe of half the size would differ by, without any training."
    yield Figure("Shift beside its scale", shift_figure(data), note)
    yield Figure("Profile of importance", profiles(data), "At the end of the runs, mean over seeds.")
    note = "Share at the end less share at the start, mean over seeds."
    yield Figure("Change of importance by layer and arm", importance_by_arm(data), note)
    yield Figure("Change of importance by layer and kind of matrix", importance_by_kind(data), note)
    yield correlation_table(data)
    yield Figure("Shift and text lost", correlation_figure(data), "One point a run.")
    note = "Frobenius norm of the change over that of the weights before, mean over seeds; blank: did not move."
    yield Figure("Change of the weights by layer and arm", change_by_arm(data), note)
    yield Figure("Change of the weights by layer and kind of matrix", change_by_kind(data), note)
    yield overlap_table(data)
    note = "Bars: 95 % of shuffled lines stay below; crosses: random adapters of the same rank."
    yield Figure("Where the weights moved against where they were important", overlap_figure(data), note)
    yield removal_table(data)
    yield grid_table(data)
    yield missing_table(data)


class StudyReport:
    """The page of a study, and its tables as Markdown and JSON.

    Args:
        path: Directory of a study.

    Attributes:
        notes: What could not be shown, and why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = load_study(path)
        self._parts = study_parts(self._data)
        self.notes = self._data.notes

    @property
    def tables(self) -> list[Table]:
        """Its tables, in the order of the page."""
        return [part for part in self._parts if isinstance(part, Table)]

    def write(self, page: Path) -> None:
        """Writes the page, and the tables beside it as Markdown and JSON."""
        write_page(_page(self._data, self._parts), page, [self._path])
        write_page(as_markdown(self.tables), page.with_name(MARKDOWN))
        write_json([asdict(table) for table in self.tables], page.with_name(NUMBERS))

    def write_figures(self, folder: Path) -> int:
        """Writes the figures as SVG files, and tells how many.

        Raises:
            UserError: If there is nothing to draw them with.
        """
        drawn = {part.title: part.drawn for part in self._parts if isinstance(part, Figure)}
        return len(write_figures(drawn, folder))


def _page(data: StudyData, parts: list[Table | Figure]) -> str:
    figures = [part for part in parts if isinstance(part, Figure)]
    places = {figure.title: f"figure-{number}" for number, figure in enumerate(figures)}
    drawn = {places[figure.title]: rounded(figure.drawn.to_plotly_json()) for figure in figures}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("study.html.jinja").render(
        name=data.study.directory.resolve().name,
        parts=parts,
        places=places,
        figures=as_json(drawn),
        plotly=packed_plotly(),
        script=script("plotly.js", "study.js"),
        notes=data.notes,
        plan=data.study.text,
        made=datetime.now(UTC),
    )

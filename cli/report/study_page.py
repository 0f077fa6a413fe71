"""``textkeep report STUDY_DIR``: a study's tables on the terminal, as Markdown, and on a page with its figures."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..importance.output import print_table, write_json
from .study_data import StudyData, load_study
from .study_figures import frontier, profiles
from .study_tables import as_markdown, study_tables

TEMPLATES = Path(__file__).parent / "templates"
PAGE, MARKDOWN, NUMBERS = "report.html", "tables.md", "tables.json"


def report_study(path: Path, output: Path | None) -> int:
    """Writes the page, and the tables beside it as Markdown and JSON.

    Args:
        path: Directory of a study.
        output: The page; default ``report.html`` in the study's directory.

    Returns:
        The exit code.
    """
    from .command import write_page

    data = load_study(path)
    tables = study_tables(data)
    page = output or path / PAGE
    write_page(_page(data, tables), page)
    write_page(as_markdown(tables), page.with_name(MARKDOWN))
    write_json([asdict(table) for table in tables], page.with_name(NUMBERS))
    for table in tables:
        print_table(table.title, table.head, table.rows)
    for note in data.notes:
        print(note)
    print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB); tables: {page.with_name(MARKDOWN)}")
    return 0


def _page(data: StudyData, tables: list[Any]) -> str:
    figures = [("Text kept against speech gained", frontier(data))]
    figures += [(f"Profile of importance: {name}", figure) for name, figure in profiles(data).items()]
    drawn = [(title, figure) for title, figure in figures if figure is not None]
    parts = [
        (title, Markup(figure.to_html(full_html=False, include_plotlyjs=index == 0)))
        for index, (title, figure) in enumerate(drawn)
    ]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("study.html.jinja").render(
        name=data.study.directory.resolve().name,
        tables=tables,
        figures=parts,
        notes=data.notes,
        plan=data.study.text,
        made=datetime.now(UTC),
    )

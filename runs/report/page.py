"""A report as one HTML page: figures as data, Plotly packed inside, nothing from the network."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from .figures.figure import Figure
from .section import Section

TEMPLATES = Path(__file__).parent / "templates"
_ENVIRONMENT = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def coded(text: str) -> Markup:
    """Writes what stands between backticks in a sentence as code; all else is escaped."""
    pieces = enumerate(re.split(r"`([^`]+)`", text))
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece) for place, piece in pieces
    )


_ENVIRONMENT.filters["coded"] = coded


def part(name: str, **values: Any) -> Markup:
    """Renders a template of one kind of page, which :func:`render` puts before or after the sections."""
    return Markup(_ENVIRONMENT.get_template(f"{name}.html.jinja").render(**values))


def render(
    title: str, kind: str, sections: Sequence[Section], before: Markup, after: Markup, lead: Sequence[Figure] = ()
) -> str:
    """Writes a page.

    Args:
        title: Its heading.
        kind: The kind of page: a report, a study.
        sections: With all figures and tables.
        before: Shown above them.
        after: Shown below them.
        lead: Figures contained in ``before``.
    """
    figures = [*lead, *(figure for section in sections for figure in section.figures)]
    return _ENVIRONMENT.get_template("page.html.jinja").render(
        title=title,
        kind=kind,
        sections=sections,
        before=before,
        after=after,
        made=datetime.now(UTC),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        figures=_as_json({figure.id: figure.drawn for figure in figures}),
        plotly=_packed_plotly(),
    )


def _packed_plotly() -> Markup:
    """Packs Plotly's script to a third of its size; the page's script unpacks it in the browser."""
    return Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode())


def _as_json(value: Any) -> Markup:
    """Serialises JSON that is safe inside a script element."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))

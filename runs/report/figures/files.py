"""Figures as SVG files, for a paper: drawn by Plotly's own exporter, kaleido."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from ....foundation.errors import UserError
from .figure import Drawing, Figure

WIDTH, HEIGHT = 900, 460
ALLOWED = "kaleido and a Chrome or Chromium: pip install 'textkeep[figures]'"


def write_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Writes every drawing of every figure to its own file.

    Args:
        figures: What to write.
        folder: Created if missing; files of the same name are replaced.

    Returns:
        The files: ``shift-beside-its-scale.taylor.svg`` and the like.

    Raises:
        UserError: If no renderer is available.
    """
    drawn = {
        f"{_slug(figure.title)}{'.' * bool(name)}{_slug(name)}.svg": _for_paper(drawing)
        for figure in figures
        for name, drawing in figure.drawn.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".figures-") as temporary:
        files = [Path(temporary, name) for name in drawn]
        try:
            plotly.io.write_images(list(drawn.values()), files, width=WIDTH)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"report: --figures: {reason} (allowed: {ALLOWED})") from error
        return [file.replace(folder / file.name) for file in files]


def _for_paper(drawing: Drawing) -> go.Figure:
    layout = {key: value for key, value in drawing["layout"].items() if key not in ("template", "margin")}
    return go.Figure(drawing["data"], {**layout, "template": "plotly_white", "height": HEIGHT})


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

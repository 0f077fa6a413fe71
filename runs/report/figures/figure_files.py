"""A study's figures as SVG files, for a paper: drawn by Plotly's own exporter, kaleido."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from ....foundation.errors import UserError

WIDTH = 900
ALLOWED = "kaleido and a Chrome or Chromium: pip install 'textkeep[figures]'"


def write_figures(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Writes every figure, and every alternative of one with a menu, to a file of its own.

    Args:
        figures: Title -> figure.
        folder: Is made; files of the same name are replaced.

    Returns:
        The files: ``shift-beside-its-scale.taylor.svg`` and the like.

    Raises:
        UserError: If there is nothing to draw with.
    """
    drawn = {
        f"{_slug(title)}{'.' * bool(name)}{_slug(name)}.svg": alternative
        for title, figure in figures.items()
        for name, alternative in alternatives(figure)
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


def alternatives(figure: go.Figure) -> Iterator[tuple[str, go.Figure]]:
    """What the menu of a figure offers, each without the menu; the figure itself, unnamed, where it has none."""
    menus = figure.layout.updatemenus
    if not menus:
        yield "", figure
        return
    for button in menus[0].buttons:
        chosen = go.Figure(figure)
        restyle, relayout = button.args
        chosen.plotly_update(restyle_data=restyle, relayout_data=relayout)
        chosen.layout.updatemenus = None
        yield button.label, go.Figure([trace for trace in chosen.data if trace.visible is not False], chosen.layout)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

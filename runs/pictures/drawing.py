"""Axes to draw on, and the colours of all pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...foundation.files import replacing

BEFORE, AFTER, GREY = "#3b6ea5", "#c4453a", "#777777"


@contextmanager
def drawing(path: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.0)) -> Iterator[Any]:
    """Provides axes to draw on; the file is written under a temporary name and renamed.

    Args:
        path: Picture to write; its suffix determines the format.
        rows: Of panels.
        columns: Of panels.
        size: Inches.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    try:
        yield axes
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format=path.suffix[1:] or "png")
    finally:
        pyplot.close(figure)

"""Tables and curves in plain text, for ``print`` on a result and for a run in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

BLOCKS = " ▁▂▃▄▅▆▇█"
WRONG = "✗"


def plain_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a line and a table below it, its columns aligned: the first to the left, the others to the right."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    cells = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    )
    return "\n".join([title, *("  ".join(["", *line]).rstrip() for line in cells)])


def bars(heights: Sequence[float], rows: int, cells: int) -> list[str]:
    """Draws heights from 0 to 1 as ``rows`` lines of blocks, from the top; each bar ``cells`` wide.

    One that is infinite or not a number is a ``✗`` at the bottom.
    """
    return ["".join(_block(height, row, rows) * cells for height in heights) for row in reversed(range(rows))]


def _block(height: float, row: int, rows: int) -> str:
    """Returns the part of a bar in a row, counted from the bottom."""
    if not math.isfinite(height):
        return " " if row else WRONG
    return BLOCKS[max(0, min(8, round(8 * rows * max(0.0, min(1.0, height))) - 8 * row))]


def sparkline(values: Sequence[float], width: int) -> str:
    """Draws a curve of at most ``width`` characters, each the mean of a stretch, from its lowest to its highest value.

    A stretch with a value that is infinite or not a number is a ``✗``.
    """
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    drawn = [mean for mean in means if math.isfinite(mean)]
    low, high = min(drawn, default=0.0), max(drawn, default=0.0)
    span = (high - low) or 1.0
    return "".join(BLOCKS[1 + round(7 * (mean - low) / span)] if math.isfinite(mean) else WRONG for mean in means)

"""Fits a run into a terminal: the fullest frame that has room, or else a smaller one."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, RenderableType

from .frame import frame
from .run_view import RunView


@dataclass(frozen=True)
class Detail:
    """The level of detail of a frame.

    Attributes:
        rows: Lines of a layer profile; 0 for one line per probe.
        losses: Show the panel of the losses.
        scores: Show the panel of the scores.
    """

    rows: int
    losses: bool = True
    scores: bool = True


DETAILS = (Detail(4), Detail(2), Detail(0), Detail(0, losses=False), Detail(0, losses=False, scores=False))
"""From most to least: profiles shrink first, then the losses go, which every other tool shows as well."""


def fitted(view: RunView, estimator: str | None, console: Console) -> RenderableType:
    """Returns the first frame of :data:`DETAILS` that the terminal has rows for; the last one if none does.

    Args:
        view: The run.
        estimator: Whose profiles; ``None`` for the first measured.
        console: Provides columns and rows.
    """
    for detail in DETAILS:
        found = frame(view, estimator, console.width, detail.rows, detail.losses, detail.scores)
        if len(console.render_lines(found)) <= console.height:
            break
    return found

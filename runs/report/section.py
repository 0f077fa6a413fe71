"""What a page is made of: sections with places for figures, and the selections that choose among them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .figures.figure_style import Figure


@dataclass(frozen=True)
class Plot:
    """A place for a figure.

    Attributes:
        id: Of the element.
        title: Above it.
        caption: Below it: how to read it.
        controls: Names of the selections that choose among the figures.
        figures: The figures, by the values of the selections joined with ``|``.
        follows: What it does with the section's slider: ``mark`` the step, or draw the ``profile`` at it; or nothing.
    """

    id: str
    title: str
    caption: str
    controls: tuple[str, ...] = ()
    figures: dict[str, Figure] = field(default_factory=dict)
    follows: str = ""


@dataclass
class Section:
    """A heading with figures.

    Attributes:
        title: Heading.
        intro: Below it.
        controls: Selection -> value -> text.
        steps: Of the slider; none with fewer than two.
        plots: Places.
        missing: Why there are none.
    """

    title: str
    intro: str
    controls: dict[str, dict[str, str]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    missing: str = ""

    def add(self, plot: Plot) -> None:
        """Keeps a plot that has figures."""
        if plot.figures:
            self.plots.append(plot)

"""The report as one HTML page: figures as data, Plotly packed inside, nothing from the network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .comparison import MAX_FLIPS, config_difference, flips, paired_table, score_tables
from .evaluation_figures import accuracies, answer_losses, hearing_gaps, training
from .figure_style import Figure
from .importance_figures import SHIFTS, VIEWS, heat_maps, probe_losses, profiles, ratios, shifts
from .run_data import RunData
from .verdict import SPLITS, headline, verdict

TEMPLATES = Path(__file__).parent / "templates"
PACKAGES = ("textkeep", "torch", "lightning", "transformers", "peft", "plotly")


@dataclass(frozen=True)
class Plot:
    """A place for a figure.

    Attributes:
        id: Of the element.
        title: Above it.
        caption: Below it: how to read it.
        controls: Names of the selections that choose among the figures.
    """

    id: str
    title: str
    caption: str
    controls: tuple[str, ...] = ()


@dataclass
class Section:
    """A heading with figures; ``missing`` says why there are none."""

    title: str
    intro: str
    controls: dict[str, dict[str, str]] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    missing: str = ""


class Page:
    """Collects figures and renders the template.

    Args:
        runs: In the order in which they are shown.
    """

    def __init__(self, runs: Sequence[RunData]) -> None:
        self.runs = runs
        self.figures: dict[str, dict[str, Figure]] = {}

    def render(self) -> str:
        """The page."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["headline"] = headline
        sections = [self._answers(), self._importance(), self._training()]
        return environment.get_template("report.html.jinja").render(
            runs=self.runs,
            verdicts=[(run, verdict(run)) for run in self.runs],
            sections=sections,
            scores=score_tables(self.runs),
            paired=paired_table(self.runs),
            flipped=self._flipped(),
            max_flips=MAX_FLIPS,
            difference=config_difference(self.runs),
            versions=_versions(),
            made=datetime.now(UTC),
            style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
            figures=_json(self.figures),
            plotly=Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()),
        )

    def _add(self, section: Section, plot: Plot, figures: dict[str, Figure]) -> None:
        if figures:
            self.figures[plot.id] = figures
            section.plots.append(plot)

    def _answers(self) -> Section:
        section = Section(
            "Answers",
            "The same questions, written and spoken; right is what holds a gold answer.",
        )
        found = [stage for stage in SPLITS if any(stage in run.evaluations for run in self.runs)]
        section.controls["split"] = {stage: f"{SPLITS[stage]} questions" for stage in found}
        bars = "Bars: 95 % intervals"
        caption = f"{bars} (Wilson)."
        self._add(section, Plot("accuracy", "Accuracy", caption, ("split",)), accuracies(self.runs))
        caption = f"{bars} (bootstrap over items)."
        self._add(section, Plot("answer-loss", "Loss on the answers", caption, ("split",)), answer_losses(self.runs))
        caption = (
            "Loss on the answers with the clips exchanged among the questions, minus with the right clips. "
            f"A model that does not listen stays at 0. {bars} (bootstrap over items)."
        )
        self._add(section, Plot("hearing", "Hearing gap", caption, ("split",)), hearing_gaps(self.runs))
        if not section.plots:
            section.missing = "No evaluation was found: the callback Retention writes them."
        return section

    def _importance(self) -> Section:
        section = Section(
            "Importance",
            "Where in the LLM the score of its weights lies, before, while and after it learns speech.",
        )
        pairs = list(dict.fromkeys(pair for run in self.runs for pair in run.measured()))
        section.controls = {
            "probe": {probe: probe for probe, _ in pairs},
            "estimator": {estimator: estimator for _, estimator in pairs},
            "view": VIEWS,
            "measure": SHIFTS,
        }
        both = ("probe", "estimator")
        for index, (run, figures) in enumerate(zip(self.runs, heat_maps(self.runs), strict=True)):
            title = "Layer by step" + (f": {run.name}" if len(self.runs) > 1 else "")
            plot = Plot(f"heat-{index}", title, "One column a measurement.", (*both, "view"))
            self._add(section, plot, figures)
        caption = "Dotted: first measurement. Solid: last."
        self._add(section, Plot("profile", "Profiles at start and end", caption, both), profiles(self.runs))
        caption = "Below 1, a layer lost importance in absolute terms. Bars: 90 % paired bootstrap over examples."
        self._add(section, Plot("ratio", "Layer totals, end over start", caption, both), ratios(self.runs))
        caption = "Bars: 90 % intervals. Grey: what random halves of the probe's examples differ by without training."
        self._add(section, Plot("shift", "Shift over steps", caption, (*both, "measure")), shifts(self.runs))
        losses = probe_losses(self.runs)
        caption = "To be read beside the shift: importance on items that a model has fitted falls by itself."
        self._add(section, Plot("probe-loss", "Loss on the probes", caption), {"": losses} if losses else {})
        if not section.plots:
            section.missing = "No importance measurement was found: the callback ImportanceTracker writes them."
        return section

    def _training(self) -> Section:
        section = Section("Training", "")
        figure = training(self.runs)
        self._add(section, Plot("training", "Losses while training", ""), {"": figure} if figure else {})
        if not section.plots:
            section.missing = "No training loss was logged."
        return section

    def _flipped(self) -> list[dict[str, Any]]:
        return [
            {"run": run, "split": SPLITS[stage], "evaluation": found, "items": flips(found)}
            for run in self.runs
            for stage, found in run.evaluations.items()
            if len(found.rows) > 1
        ]


def _json(value: Any) -> Markup:
    """JSON that can stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _versions() -> dict[str, str]:
    """Software that made the report."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

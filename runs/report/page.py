"""The report as one HTML page: figures as data, Plotly packed inside, nothing from the network."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ...evaluation import MODALITIES
from ..run import Run
from .clips import Clips
from .sections import (
    answers_section,
    frontier_section,
    importance_section,
    removal_section,
    structure_section,
    training_section,
)
from .tables.comparison import MAX_FLIPS, config_difference, flipped_questions, paired_table, score_tables
from .verdict import SPLITS, headline, verdict

TEMPLATES = Path(__file__).parent / "templates"
PACKAGES = ("textkeep", "torch", "lightning", "transformers", "peft", "plotly")


class Page:
    """Collects figures and renders the template.

    Args:
        runs: In the order in which they are shown.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    def render(self) -> str:
        """The page."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["headline"] = headline
        sections = [
            answers_section(self.runs),
            importance_section(self.runs),
            structure_section(self.runs),
            removal_section(self.runs),
            training_section(self.runs),
        ]
        frontier = frontier_section(self.runs)
        plots = [plot for section in (frontier, *sections) for plot in section.plots]
        return environment.get_template("report.html.jinja").render(
            runs=self.runs,
            verdicts=[(run, verdict(run)) for run in self.runs],
            frontier=frontier,
            sections=sections,
            scores=score_tables(self.runs),
            paired=paired_table(self.runs),
            flipped=self._flipped(),
            modalities=MODALITIES,
            difference=config_difference(self.runs),
            versions=_versions(),
            made=datetime.now(UTC),
            style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=script("plotly.js", "report.js"),
            figures=as_json({plot.id: plot.figures for plot in plots}),
            plotly=packed_plotly(),
        )

    def _flipped(self) -> list[dict[str, Any]]:
        clips, parts = Clips(), []
        for run in self.runs:
            for stage, found in run.evaluations.items():
                if len(found.rows) < 2:
                    continue
                questions = flipped_questions(found)
                sounds = clips.of(run, stage, [q.id for q in questions[:MAX_FLIPS]]) if questions else {}
                shown = [replace(q, clip=sounds.get(q.id, "")) for q in questions[:MAX_FLIPS]]
                counts = Counter((m, kind) for q in questions for m, kind in q.kinds.items() if kind != "same")
                part = {"run": run, "split": SPLITS[stage], "evaluation": found, "questions": shown, "counts": counts}
                parts.append({**part, "hidden": len(questions) - len(shown)})
        return parts


def script(*names: str) -> Markup:
    """Scripts of the templates, one after the other."""
    return Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def packed_plotly() -> Markup:
    """Plotly's script, packed to a third of its size; ``plotly.js`` of the templates unpacks it in the browser."""
    return Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode())


def as_json(value: Any) -> Markup:
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

"""Scores of the questions over steps, of text and speech, by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....evaluation import MODALITIES
from ...run import Run
from ..numbers import SPLITS
from .figure import Drawing, Figure, drawing
from .style import DASHES, MODALITY_COLOURS, SYMBOLS, colour, curve, label, symbol

BARS = "Bars: 95 % intervals"


def stages(runs: Sequence[Run]) -> list[str]:
    """Lists the stages that any of the runs evaluated."""
    return [stage for stage in SPLITS if any(stage in run.evaluations for run in runs)]


def by_stage(
    identity: str,
    title: str,
    note: str,
    drawn: Mapping[str, Drawing],
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> Figure | None:
    """Builds a figure with one drawing per stage; None without any.

    Args:
        identity: Of the figure.
        title: Above it.
        note: Below it.
        drawn: By stage, and by the values of further selections.
        more: Those selections.
    """
    if not drawn:
        return None
    split = {
        stage: f"{words} questions" for stage, words in SPLITS.items() if any(k.split("|")[0] == stage for k in drawn)
    }
    return Figure(identity, title, drawn, note, {"split": split, **(more or {})})


def scores_over_steps(runs: Sequence[Run], metric: str, title: str, scale: float, **axis: Any) -> dict[str, Drawing]:
    """Draws a metric of text and speech over steps with its intervals, for each stage.

    Args:
        runs: With several runs, each has a colour; otherwise each modality does.
        metric: Its name without the modality.
        title: Of the axis.
        scale: Of its values.
        axis: More settings of the axis.
    """
    found = {}
    for stage in stages(runs):
        traces = []
        for index, run in enumerate(runs):
            for modality in MODALITIES:
                series = run.evaluations[stage].series(f"{modality}_{metric}") if stage in run.evaluations else []
                if not series:
                    continue
                several = len(runs) > 1
                name = f"{run.name}, {modality}" if several else modality
                shade = colour(index) if several else MODALITY_COLOURS[modality]
                points = [(v * scale, low * scale, high * scale) for _, v, low, high in series]
                hover = f"{label(name)}<br>step %{{x}}: %{{y:.4g}}<extra></extra>"
                style = {"dash": "solid", "symbol": SYMBOLS[modality]}
                if several:
                    style = {"dash": DASHES[modality], "symbol": symbol(index)}
                steps = [step for step, *_ in series]
                traces.append(curve(name, steps, points, shade, hovertemplate=hover, **style))
        if traces:
            settings = {"title": {"text": title}, "zeroline": False, **axis}
            found[stage] = drawing(traces, "step", title, yaxis=settings)
    return found

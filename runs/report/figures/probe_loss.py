"""The loss on the probes, to be read together with the shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...run import Run
from .figure import Drawing, Figure, drawing, one_of, single
from .pairs import pairs_of
from .style import colour, curve, symbol

NOTE = "To be read beside the shift: importance on items that a model has fitted falls by itself."
TITLE = "Loss on the probes"
DASHES = ("solid", "dash", "dot", "dashdot")


def probe_loss(runs: Sequence[Run]) -> Figure | None:
    """Draws the loss on each probe over steps: all of them of a single run, to choose among those of several."""
    probes = list(dict.fromkeys(probe for probe, _ in pairs_of(runs)))
    if len(runs) == 1:
        curves = [_curve(runs[0], probe, probe, place) for place, probe in enumerate(probes)]
        return single("probe-loss", TITLE, _drawn(curves), NOTE)
    options = {
        probe: made
        for probe in probes
        if (made := _drawn([_curve(run, probe, run.name, index) for index, run in enumerate(runs)])) is not None
    }
    return one_of("probe-loss", TITLE, options, NOTE)


def _curve(run: Run, probe: str, name: str, index: int) -> Any:
    """Draws a run's loss on a probe; None if it was not measured there."""
    lines = {line["step"]: line["loss"] for line in run.importance.measurements if line["probe"] == probe}
    if not lines:
        return None
    points = [(lines[step], math.nan, math.nan) for step in sorted(lines)]
    style = {"dash": DASHES[index % len(DASHES)], "symbol": symbol(index)}
    return curve(name, sorted(lines), points, colour(index), **style)


def _drawn(curves: Sequence[Any]) -> Drawing | None:
    traces = [trace for trace in curves if trace is not None]
    return drawing(traces, "step", "probe loss, nats/token") if traces else None

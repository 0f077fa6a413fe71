"""The loss on the probes, to be read beside the shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...run import Run
from .figure import Figure, drawing, single
from .pairs import pairs_of
from .style import colour, curve

NOTE = "To be read beside the shift: importance on items that a model has fitted falls by itself."


def probe_loss(runs: Sequence[Run]) -> Figure | None:
    """Draws the loss on each probe over steps."""
    traces = []
    dashes = ("solid", "dash", "dot", "dashdot")
    probes = list(dict.fromkeys(probe for probe, _ in pairs_of(runs)))
    for index, run in enumerate(runs):
        for place, probe in enumerate(probes):
            lines = {line["step"]: line["loss"] for line in run.importance.measurements if line["probe"] == probe}
            if not lines:
                continue
            name = f"{run.name}, {probe}" if len(runs) > 1 else probe
            shade = colour(index) if len(runs) > 1 else colour(place)
            points = [(lines[step], math.nan, math.nan) for step in sorted(lines)]
            traces.append(curve(name, sorted(lines), points, shade, dash=dashes[place % len(dashes)]))
    drawn = drawing(traces, "step", "probe loss, nats/token") if traces else None
    return single("probe-loss", "Loss on the probes", drawn, NOTE)

"""How far the importance shifted, over steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ....evaluation import shown_p
from ...measurements import Estimated
from ...run import Run
from .figure import Figure, drawing
from .pairs import by_pair, limits_of, pairs_of
from .style import NEUTRAL, colour, curve, label, symbol

AXES = {
    "js": "JS distance",
    "wasserstein": "Wasserstein distance",
    "centre_move": "move of the centre",
    "log_total_ratio": "log ratio of totals",
    "spearman": "rank correlation",
}
SHIFTS = {
    "js": "Jensen-Shannon distance of layer shares",
    "wasserstein": "Wasserstein distance over depth",
    "centre_move": "move of the centre (above 0: towards the output)",
    "log_total_ratio": "log ratio of the totals (below 0: suppression)",
    "spearman": "rank correlation of layers",
}

NOTE = (
    "Distances less the part that noise alone adds, with 90 % intervals; on hover, the distance as measured, "
    "the part from noise alone, and p of the paired test of whether these examples moved. "
    "Grey: for scale, how far another probe of half the size would differ."
)


def shift(runs: Sequence[Run]) -> Figure | None:
    """Draws the shift against the first measurement with 90 % intervals and the null, for each measure."""
    found = {}
    for probe, estimator in pairs_of(runs):
        for measure, title in AXES.items():
            traces = []
            for index, run in enumerate(runs):
                traces += _shift_traces(run, probe, estimator, measure, index)
            if traces:
                found[f"{probe}|{estimator}|{measure}"] = drawing(traces, "step", title)
    return by_pair("shift", "Shift over steps", NOTE, found, runs, {"measure": SHIFTS})


def _words(estimate: Estimated, floor: float | None) -> str:
    """Formats the measured value, the part from noise alone, and the p-value, as far as they are known."""
    words = [f"measured {estimate['value']:.3g}"]
    if (expected := estimate.get("expected")) is not None:
        words.append(f"noise alone {expected:.3g}")
    if (p := estimate.get("p")) is not None:
        words.append(f"paired p {shown_p(p, floor or 0.0)}")
    return ", ".join(words)


def _shift_traces(run: Run, probe: str, estimator: str, measure: str, index: int) -> list[Any]:
    found = [(line["step"], line.get("shift")) for line in run.importance.of(probe, estimator)]
    measured = {step: shift["metrics"][measure] for step, shift in found if shift and measure in shift["metrics"]}
    if not measured:
        return []
    steps, estimates = list(measured), list(measured.values())
    hover = f"{label(run.name)}<br>step %{{x}}: %{{y:.3g}}<br>%{{text}}<extra></extra>"
    floors = [(shift or {}).get("p_floor") for _, shift in found if shift and measure in shift["metrics"]]
    words = [_words(estimate, floor) for estimate, floor in zip(estimates, floors, strict=True)]
    style = {"symbol": symbol(index), "hovertemplate": hover, "text": words}
    traces = [curve(run.name, steps, [limits_of(e) for e in estimates], colour(index), **style)]
    null = [e["null_p95"] for e in estimates]
    if all(value is not None for value in null) and measure in ("js", "wasserstein"):
        traces.append(
            go.Scatter(
                x=steps,
                y=null,
                name="another probe of half the size (95 %)",
                legendgroup="null",
                showlegend=not index,
                mode="lines",
                line={"color": NEUTRAL, "dash": "dash", "width": 1},
                fill="tozeroy",
                fillcolor="rgba(138,143,152,0.18)",
                hovertemplate="between random halves of the probe: %{y:.3g}<extra></extra>",
            )
        )
    return traces

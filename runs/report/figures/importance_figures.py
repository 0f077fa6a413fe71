"""Figures of parameter importance: where in the LLM the knowledge lives, and how that moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ...measurements import Estimated, Measurement
from ...run import Run
from .figure_style import NEUTRAL, Figure, colour, curve, figure, label

VIEWS = {"share": "share of each layer", "change": "change of the share since the first measurement"}
DEPTH = "layer (0 = next to the embeddings)"
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


def heat_maps(runs: Sequence[Run]) -> list[dict[str, Figure]]:
    """Layer by step of each run, for each ``probe|estimator|view``; the runs share the range of the colours."""
    drawn: list[dict[str, Figure]] = [{} for _ in runs]
    for probe, estimator in _pairs(runs):
        for view in VIEWS:
            lines = [run.importance.of(probe, estimator) for run in runs]
            tables = [_table(found, view) for found in lines]
            shown = [v for table in tables for row in table for v in row if math.isfinite(v)]
            for place, found, table in zip(drawn, lines, tables, strict=True):
                if found:
                    place[f"{probe}|{estimator}|{view}"] = _heat_map(found, table, view, shown)
    return drawn


def _table(lines: Sequence[Measurement], view: str) -> list[list[float]]:
    """Percent by layer and step; for the view ``change``, less the first step's."""
    layers = list(lines[0]["shares"]) if lines else []
    shares = [[100 * line["shares"].get(layer, math.nan) for line in lines] for layer in layers]
    return shares if view == "share" else [[value - row[0] for value in row] for row in shares]


def _heat_map(lines: Sequence[Measurement], table: list[list[float]], view: str, shown: Sequence[float]) -> Figure:
    limit = max(map(abs, shown), default=0.0) or 1e-9
    scale: dict[str, Any] = {"colorscale": "Cividis", "zmin": min(shown, default=0.0), "zmax": limit}
    if view != "share":
        scale = {"colorscale": "RdBu", "reversescale": True, "zmin": -limit, "zmax": limit}
    unit = "%" if view == "share" else "points"
    trace = go.Heatmap(
        x=[str(line["step"]) for line in lines],
        y=list(range(len(table))),
        z=table,
        hovertemplate="step %{x}, layer %{y}: %{z:.3g} " + unit + "<extra></extra>",
        colorbar={"title": {"text": unit, "side": "top"}, "thickness": 12, "len": 0.9},
        **scale,
    )
    return figure([trace], "step", DEPTH, xaxis={"title": {"text": "step"}, "type": "category"})


def measured_steps(runs: Sequence[Run]) -> list[int]:
    """All steps at which importance was measured in any of the runs."""
    return sorted({line["step"] for run in runs for line in run.importance.measurements})


def profiles(runs: Sequence[Run]) -> dict[str, Figure]:
    """Layer shares at the first and the last measurement, for each ``probe|estimator``.

    The last one's trace carries the other measurements (``meta``), for the page's slider to show.
    """
    return {f"{probe}|{estimator}": _profile(runs, probe, estimator) for probe, estimator in _pairs(runs)}


def _profile(runs: Sequence[Run], probe: str, estimator: str) -> Figure:
    traces = []
    for index, run in enumerate(runs):
        lines = run.importance.of(probe, estimator)
        ends = [(lines[0], "dot", "circle-open"), (lines[-1], "solid", "circle")] if len(lines) > 1 else []
        ends = ends or [(line, "solid", "circle") for line in lines[:1]]
        for line, dash, symbol in ends:
            values = list(line["shares"].values())
            points = [(100 * v, math.nan, math.nan) for v in values]
            name = f"{run.name}, step {line['step']}" if len(runs) > 1 else f"step {line['step']}"
            hover = f"{label(name)}<br>layer %{{x}}: %{{y:.3g}} %<extra></extra>"
            style = {"dash": dash, "symbol": symbol, "hovertemplate": hover}
            trace = curve(name, range(len(values)), points, colour(index), **style)
            if line is lines[-1] and len(lines) > 1:
                trace.meta = {
                    "name": label(f"{run.name}, " if len(runs) > 1 else ""),
                    "steps": [each["step"] for each in lines],
                    "shares": [[100 * share for share in each["shares"].values()] for each in lines],
                }
            traces.append(trace)
    axis = {"title": {"text": "share of the importance, %"}, "rangemode": "tozero", "zeroline": False}
    return figure(traces, DEPTH, "", yaxis=axis)


def ratios(runs: Sequence[Run]) -> dict[str, Figure]:
    """Each layer's total at the end over that at the start, for each ``probe|estimator`` that has a shift."""
    found = {}
    for probe, estimator in _pairs(runs):
        traces = []
        for index, run in enumerate(runs):
            lines = run.importance.of(probe, estimator)
            shift = lines[-1].get("shift") if len(lines) > 1 else None
            if shift is None:
                continue
            layers = list(shift["layers"].values())
            points = [_limits(layer) for layer in layers]
            hover = "layer %{x}: x%{y:.3g}<extra></extra>"
            traces.append(curve(run.name, range(len(layers)), points, colour(index), hovertemplate=hover))
        if traces:
            one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"color": NEUTRAL}}
            axis = "total, end / start"
            found[f"{probe}|{estimator}"] = figure(traces, DEPTH, axis, shapes=[one], showlegend=len(traces) > 1)
    return found


def shifts(runs: Sequence[Run]) -> dict[str, Figure]:
    """Shift against the first measurement over steps with 90 % intervals and the null, for each pair and measure."""
    found = {}
    for probe, estimator in _pairs(runs):
        for measure, title in AXES.items():
            traces = []
            for index, run in enumerate(runs):
                traces += _shift_traces(run, probe, estimator, measure, colour(index))
            if traces:
                found[f"{probe}|{estimator}|{measure}"] = figure(traces, "step", title)
    return found


def _shift_traces(run: Run, probe: str, estimator: str, measure: str, shade: str) -> list[Any]:
    found = [(line["step"], line.get("shift")) for line in run.importance.of(probe, estimator)]
    measured = {step: shift["metrics"][measure] for step, shift in found if shift and measure in shift["metrics"]}
    if not measured:
        return []
    steps, estimates = list(measured), list(measured.values())
    hover = f"{label(run.name)}<br>step %{{x}}: %{{y:.3g}}<extra></extra>"
    traces = [curve(run.name, steps, [_limits(e) for e in estimates], shade, hovertemplate=hover)]
    null = [e["null_p95"] for e in estimates]
    if all(value is not None for value in null) and measure in ("js", "wasserstein"):
        traces.append(
            go.Scatter(
                x=steps,
                y=null,
                name="another probe of half the size (95 %)",
                legendgroup="null",
                showlegend=shade == colour(0),
                mode="lines",
                line={"color": NEUTRAL, "dash": "dash", "width": 1},
                fill="tozeroy",
                fillcolor="rgba(138,143,152,0.18)",
                hovertemplate="between random halves of the probe: %{y:.3g}<extra></extra>",
            )
        )
    return traces


def probe_losses(runs: Sequence[Run]) -> Figure | None:
    """The loss on each probe over steps: importance on fitted items falls by itself."""
    traces = []
    dashes = ("solid", "dash", "dot", "dashdot")
    probes = list(dict.fromkeys(probe for probe, _ in _pairs(runs)))
    for index, run in enumerate(runs):
        for place, probe in enumerate(probes):
            lines = {line["step"]: line["loss"] for line in run.importance.measurements if line["probe"] == probe}
            if not lines:
                continue
            name = f"{run.name}, {probe}" if len(runs) > 1 else probe
            shade = colour(index) if len(runs) > 1 else colour(place)
            points = [(lines[step], math.nan, math.nan) for step in sorted(lines)]
            traces.append(curve(name, sorted(lines), points, shade, dash=dashes[place % len(dashes)]))
    return figure(traces, "step", "probe loss, nats/token") if traces else None


def _pairs(runs: Sequence[Run]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(pair for run in runs for pair in run.importance.pairs))


def _limits(estimate: Estimated) -> tuple[float, float, float]:
    low, high = estimate.get("low"), estimate.get("high")
    return estimate["value"], math.nan if low is None else low, math.nan if high is None else high

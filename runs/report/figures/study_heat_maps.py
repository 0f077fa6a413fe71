"""Heat maps of a study: where importance came and went and where the weights moved, by layer, arm and kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from statistics import fmean

import plotly.graph_objects as go

from ..study_choice import blank, one_of
from ..study_data import ArmResult, StudyData
from ..study_run import Pair, RunResult
from .figure_style import label
from .study_shift import first_estimator

Cells = Mapping[tuple[int, str], float]
"""(Layer, column) -> value."""


def importance_by_arm(data: StudyData) -> go.Figure | None:
    """Layer by arm: share of importance at the end minus share at the start, mean over seeds; a choice of probe."""
    options = {}
    for pair in data.pairs:
        cells = {}
        for arm in data.trained:
            lines = [(run.first[pair], run.last[pair]) for run in arm.runs.values() if run.shift(pair) is not None]
            for number, layer in enumerate(lines[0][1]["shares"] if lines else []):
                cells[number, arm.name] = fmean(last["shares"][layer] - first["shares"][layer] for first, last in lines)
        if cells:
            options[", ".join(pair)] = _signed(cells, "share of importance, change")
    return one_of(options)


def importance_by_kind(data: StudyData) -> go.Figure | None:
    """Layer by kind of matrix: change of each matrix's share, mean over seeds; a choice of arm and probe."""
    options = {}
    for arm in data.trained:
        for pair in first_estimator(data) if data.pairs else []:
            found = [cells for run in arm.runs.values() if (cells := _matrix_changes(run, pair))]
            if found:
                options[f"{arm.name}; {', '.join(pair)}"] = _signed(_mean(found), "share of importance, change")
    return one_of(options)


def _matrix_changes(run: RunResult, pair: Pair) -> Cells:
    """From the run's first and last snapshot; nothing where they are gone."""
    if run.shift(pair) is None:
        return {}
    first, last = run.ends(pair)
    if first is None or last is None:
        return {}
    try:
        before, after = (end.shares(pair[1], "matrix") for end in (first, last))
    except ValueError:
        return {}
    table = [m for m in first.table if m.layer is not None and m.name in before and m.name in after]
    return {(m.layer, m.kind): after[m.name] - before[m.name] for m in table if m.layer is not None}


def change_by_arm(data: StudyData) -> go.Figure | None:
    """Layer by arm: relative Frobenius norm of the weights' change, mean over seeds."""
    cells = {}
    for arm in data.trained:
        for (layer, _), value in _mean([_norms(run, kinds=False) for run in _changed(arm)]).items():
            cells[layer, arm.name] = value
    return _logarithmic(cells) if cells else None


def change_by_kind(data: StudyData) -> go.Figure | None:
    """Layer by kind of matrix: relative norm of the change; a choice of arm."""
    found = {arm.name: _mean([_norms(run, kinds=True) for run in _changed(arm)]) for arm in data.trained}
    return one_of({name: _logarithmic(cells) for name, cells in found.items() if cells})


def _changed(arm: ArmResult) -> list[RunResult]:
    return [run for run in arm.runs.values() if run.change is not None]


def _norms(run: RunResult, kinds: bool) -> Cells:
    """Norm of the changes over the norm of the weights, of the matrices of each layer (and kind); none of zeros."""
    sums: dict[tuple[int, str], list[float]] = {}
    for matrix in (run.change or {})["matrices"]:
        if matrix["layer"] is not None:
            sides = sums.setdefault((matrix["layer"], matrix["kind"] if kinds else ""), [0.0, 0.0])
            sides[0] += matrix["norm"] ** 2
            sides[1] += matrix["base_norm"] ** 2
    return {place: (change / base) ** 0.5 for place, (change, base) in sums.items() if base}


def _mean(found: Sequence[Cells]) -> dict[tuple[int, str], float]:
    places = dict.fromkeys(place for cells in found for place in cells)
    return {place: fmean(cells[place] for cells in found if place in cells) for place in places}


def _signed(cells: Cells, title: str) -> go.Figure:
    """Red where it grew, blue where it shrank."""
    limit = max(map(abs, cells.values())) or 1.0
    return _drawn(cells, {"colorscale": "RdBu_r", "zmin": -limit, "zmax": limit}, title)


def _logarithmic(cells: Cells) -> go.Figure:
    """Arms differ by orders of magnitude: shaded by the logarithm; what did not move stays blank."""
    shades = {place: log10(value) for place, value in cells.items() if value > 0}
    return _drawn(shades, {"colorscale": "Viridis"}, "log10 of |dW| / |W|", absent=cells)


def _drawn(cells: Cells, style: Mapping[str, object], title: str, absent: Cells | None = None) -> go.Figure:
    columns = list(dict.fromkeys(column for _, column in absent or cells))
    layers = sorted({layer for layer, _ in absent or cells})
    drawn = blank("", "decoder layer")
    drawn.add_heatmap(
        x=[label(column) for column in columns],
        y=layers,
        z=[[cells.get((layer, column)) for column in columns] for layer in layers],
        colorbar={"title": {"text": title, "side": "right"}},
        hovertemplate="%{x}, layer %{y}: %{z:.3g}<extra></extra>",
        **style,
    )
    return drawn

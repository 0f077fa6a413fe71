"""The effect of switching weights off on the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from ...measurements import Removal
from ...run import Run
from .figure import Figure, drawing
from .style import COLOURS, NEUTRAL, bars

REMOVED = {"top": COLOURS[1], "random": NEUTRAL, "bottom": COLOURS[0]}
NOTE = "Increase over the loss of the intact weights, on examples other than those scored. Bars: 90 % bootstrap."


def removal(runs: Sequence[Run]) -> Figure | None:
    """Draws the increase of the loss with top, random and bottom weights off, for each removal test found."""
    found = {}
    for run in runs:
        for name, test in _named(run):
            data = list(dict.fromkeys(row["data"] for row in test["rows"]))
            traces = []
            for removed, shade in REMOVED.items():
                rows = {row["data"]: row for row in test["rows"] if row["removed"] == removed}
                if set(rows) != set(data):
                    continue
                points = [(rows[d]["increase"], rows[d]["low"], rows[d]["high"]) for d in data]
                text = [f"perplexity {rows[d]['perplexity']:.4g}" for d in data]
                hover = f"{removed} off, %{{x}}: %{{y:+.3g}} nats/token<br>%{{customdata}}<extra></extra>"
                traces.append(
                    go.Bar(
                        x=data,
                        y=[value for value, _, _ in points],
                        error_y=bars(points),
                        name=removed,
                        customdata=text,
                        marker={"color": shade},
                        hovertemplate=hover,
                    )
                )
            if traces:
                key = f"{run.name}: {name}" if len(runs) > 1 else name
                found[key] = drawing(traces, "", "increase of the loss, nats/token", barmode="group")
    if not found:
        return None
    title = "Top, random and bottom weights off"
    return Figure("removal", title, found, NOTE, {"test": {name: name for name in found}})


def _named(run: Run) -> Iterator[tuple[str, Removal]]:
    """Yields the removal tests of a run, each under its own name."""
    names: list[str] = []
    for test in run.importance.removals:
        name = f"{100 * test['fraction']:.3g} % of the weights off, by {test['estimator']}, chosen per {test['scope']}"
        names.append(name)
        yield name if names.count(name) == 1 else f"{name} ({names.count(name)})", test

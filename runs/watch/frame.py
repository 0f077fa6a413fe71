"""One frame of ``textkeep watch``: progress, losses, scores, and a profile of the layers for each probe."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...evaluation import MODALITIES, shown_p
from ...foundation.duration import duration
from ...foundation.plain_tables import WRONG, bars, sparkline
from ...foundation.run_names import (
    FORGETTING,
    MISALIGNMENT,
    TRAIN_LOSS,
    budget_key,
    budget_texts,
    cross_entropy,
    stage_key,
)
from ..measurements import Measurement, ShiftRecord, with_limits
from .run_view import RunView

ROWS = 4
"""Lines of a layer profile if there is room; each has eight heights."""

NARROW = 78
STATES = {"running": "green", "finished": "cyan", "quiet": "yellow", "stopped": "yellow"}
SCORES = (
    ("text_accuracy", "text accuracy", 100.0, "%"),
    ("speech_accuracy", "speech accuracy", 100.0, "%"),
    ("text_accuracy_kept", "text accuracy kept", 100.0, "%"),
    ("text_answer_loss", "text loss", 1.0, "nats/token"),
    ("speech_answer_loss", "speech loss", 1.0, "nats/token"),
    ("hearing_gap", "hearing gap", 1.0, "nats/token"),
)
LOSSES = (
    TRAIN_LOSS,
    *(stage_key("val", cross_entropy(modality)) for modality in MODALITIES),
    FORGETTING,
    MISALIGNMENT,
)


def frame(
    view: RunView,
    estimator: str | None,
    width: int,
    rows: int = ROWS,
    losses: bool = True,
    scores: bool = True,
    bar: bool = True,
) -> RenderableType:
    """Draws what the terminal shows.

    Args:
        view: The run.
        estimator: Whose profiles; ``None`` for the first measured.
        width: Columns of the terminal.
        rows: Lines of a layer profile; 0 for one line per probe.
        losses: Show the panel of the losses.
        scores: Show the panel of the scores.
        bar: Show the bar of the progress: without colours, as in a file, its two parts look alike.
    """
    parts: list[RenderableType] = [_header(view, width, bar)]
    across = max(1, width // NARROW)
    each = width // across
    panels = [*([_losses(view, each)] if losses else []), *([_scores(view)] if scores else [])]
    parts.append(_side_by_side(panels, across))
    chosen = estimator or next(iter(view.run.importance.estimators), None)
    if chosen is None:
        parts.append(Text("importance: not measured yet (callback ImportanceTracker)", style="dim"))
        return Group(*parts)
    probes = [probe for probe, estimator in view.run.importance.pairs if estimator == chosen]
    profiles = [view.profile(probe, chosen) for probe in probes]
    if rows:
        parts.append(_side_by_side([_profile(lines, each, rows) for lines in profiles], across))
    else:
        parts.append(_one_line_each(profiles, width))
    return Group(*parts)


def _one_line_each(profiles: Sequence[list[Measurement]], width: int) -> RenderableType:
    """Returns a line per probe: its name, its layers as a curve, its shift."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="crop")
    table.add_column(no_wrap=True)
    for lines in profiles:
        shares = list(lines[-1]["shares"].values())
        curve = sparkline(shares, max(8, min(len(shares), width - 52)))
        shift = lines[-1].get("shift") if len(lines) > 1 else None
        p = _paired(shift) if shift else ""
        words = f"JS {shift['metrics']['js']['value']:.2g}{p and f' (p {p})'}" if shift else "measured once"
        table.add_row(lines[-1]["probe"], Text(curve, style="cyan"), words)
    last = profiles[0][-1]
    return Panel(table, title=f"layers, {last['estimator']}, step {last['step']}", title_align="left")


def _side_by_side(panels: Sequence[RenderableType], across: int) -> Table:
    table = Table.grid(expand=True)
    for _ in range(across):
        table.add_column(ratio=1)
    for i in range(0, len(panels), across):
        table.add_row(*panels[i : i + across])
    return table


def _header(view: RunView, width: int, bar: bool) -> RenderableType:
    state = view.state
    words = [f"step {view.step}" + (f" of {view.planned}" if view.planned else "")]
    if view.live and view.pace is not None:
        words.append(f"{view.pace:.2g} s/step, measuring included")
    if view.live:
        if view.remaining is not None:
            words.append(f"{duration(view.remaining)} left")
        words.append(f"last written {duration(max(0.0, time.time() - view.changed))} ago")
    elif state == "stopped":
        words.append("no process writes here")
    line = Text.assemble((view.run.name, "bold"), "  ", (state, f"bold {STATES[state]}"), "  ", " · ".join(words))
    if not view.planned or not bar:
        return line
    return Group(line, ProgressBar(total=view.planned, completed=min(view.step, view.planned), width=width))


def _losses(view: RunView, width: int) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    budgets = [budget_key(text, "increase") for text in budget_texts(view.run.metrics)]
    for key in (*LOSSES, *budgets):
        if points := view.run.metrics.get(key):
            trace = sparkline([value for _, value in points], max(10, min(60, width - 45)))
            table.add_row(key, f"{points[-1][1]:.4g}", Text(trace, style="cyan"))
    if not table.row_count:
        table.add_row(Text("nothing logged yet", style="dim"))
    return Panel(table, title="losses", title_align="left")


def _scores(view: RunView) -> RenderableType:
    if not view.evaluations:
        return Panel(Text("not scored yet (callback Retention)", style="dim"), title="scores", title_align="left")
    first, last = view.evaluations[0], view.evaluations[-1]
    table = Table.grid(padding=(0, 2))
    table.add_row("", Text(f"step {first['step']}", style="dim"), Text(f"step {last['step']} [95 %]", style="dim"))
    for name, label, scale, unit in SCORES:
        key = stage_key("val", name)
        if last.get(key) is not None:
            before = f"{scale * first[key]:.3g}" if first.get(key) is not None else ""
            table.add_row(label, before, f"{scale * last[key]:.3g}{_limits(last, key, scale)} {unit}")
    return Panel(table, title=f"scores on {last.get('items', '?')} questions", title_align="left")


def _limits(row: dict[str, Any], key: str, scale: float) -> str:
    low, high = (row.get("intervals") or {}).get(key) or (None, None)
    return "" if low is None or high is None else f" [{scale * low:.3g}, {scale * high:.3g}]"


def _profile(lines: Sequence[Measurement], width: int, rows: int) -> RenderableType:
    """Draws the current layer shares as bars, the initial profile below them, and the shift in words."""
    first, last = lines[0], lines[-1]
    shares, start = list(last["shares"].values()), list(first["shares"].values())
    cells = max(1, min(3, (width - 6) // max(len(shares), 1)))
    top = max([share for share in (*shares, *start) if math.isfinite(share)], default=0.0) or 1.0
    body = [Text(row, style="cyan") for row in bars([share / top for share in shares], rows, cells)]
    if len(lines) > 1:
        body.append(Text(bars([share / top for share in start], 1, cells)[0] + f"  step {first['step']}", style="dim"))
    body.append(Text(f"layers 0 to {len(shares) - 1}; {_peak(shares)}"))
    body.append(
        Text(f"{_shift(last) if len(lines) > 1 else 'measured once'}; probe loss {last['loss']:.3g} nats/token")
    )
    title = f"{last['probe']}, {last['estimator']}, step {last['step']}"
    return Panel(Group(*body), title=title, title_align="left")


def _peak(shares: Sequence[float]) -> str:
    """Names the layer with the largest share; there is none if the measurement was not finite."""
    if not all(map(math.isfinite, shares)):
        return f"{WRONG} not finite in {sum(not math.isfinite(share) for share in shares)} of them"
    peak = max(range(len(shares)), key=shares.__getitem__)
    return f"peak in layer {peak}: {100 * shares[peak]:.3g} %"


def _shift(line: Measurement) -> str:
    shift = line.get("shift")
    if not shift:
        return "no reference for a shift"
    js = shift["metrics"]["js"]
    words = f"shift (JS) {with_limits(js)}"
    if p := _paired(shift):
        words += f", paired p {p}"
    if js["null_p95"] is not None:
        words += f", halves {js['null_p95']:.2g}"
    return words


def _paired(shift: ShiftRecord) -> str:
    """Returns the p-value of the paired test; empty if there was none."""
    p, floor = shift["metrics"]["js"].get("p"), shift.get("p_floor")
    return "" if p is None or floor is None else shown_p(p, floor)

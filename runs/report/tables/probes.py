"""All probes in one table: loss, total and layer shares of each, first measurement against last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ....foundation.run_names import layer_number
from ...measurements import with_limits
from ...run import Run
from ..estimates import interval
from ..figures.pairs import limits_of
from ..movements import Movement, movement
from ..numbers import number
from .table import DASH, Table

_NOTE = (
    "First measurement against last. Loss: nats per token, mean over the examples; for questions on the answers, for "
    "plain text on every token. Its change: on the same examples, in brackets Student's 95 % interval. Total: "
    "importance, last divided by first. JS distance: of the layer shares, in [0, 1]. p: whether these examples moved, "
    "by a paired permutation test (before and after exchanged within examples). Half size: a scale, how far another "
    "probe of half the size would differ. Other brackets are 90 % bootstrap intervals over examples. On questions, "
    "loss and importance also fall because the model fits the form of answers; on plain text, a rise in the loss "
    "means lost text."
)
_HEAD = [
    "probe",
    "of",
    "estimator",
    "examples",
    "loss",
    "its change",
    "total",
    "JS distance",
    "half size",
    "p",
    "peak layer",
]


def probe_table(runs: Sequence[Run]) -> Table | None:
    """Makes the table, one row per run, probe and estimator; None if nothing was measured."""
    rows = [
        [*([run.name] if len(runs) > 1 else []), *_cells(movement(run, *pair))]
        for run in runs
        for pair in run.importance.pairs
    ]
    parts = dict.fromkeys(line.get("shares_of", "") for run in runs for line in run.importance.measurements)
    named = ", or ".join(part for part in parts if part)
    head = ["run", *_HEAD] if len(runs) > 1 else _HEAD
    note = f"{_NOTE} Shares are {named}." if named else _NOTE
    return Table("What training did on each probe", head, rows, note) if rows else None


def _cells(found: Movement) -> list[str]:
    kind = "plain text" if found.plain else "questions"
    head = [found.probe, kind, found.estimator, str(found.last.get("examples", DASH))]
    shift = found.shift
    if shift is None:
        return [*head, f"{found.last['loss']:.3f}", "measured once", *[DASH] * (len(_HEAD) - len(head) - 2)]
    js, total = shift["metrics"]["js"], shift["metrics"].get("log_total_ratio")
    before, after = layer_number(shift["peak_before"]), layer_number(shift["peak_after"])
    return [
        *head,
        f"{shift['loss_before']:.3f} → {shift['loss_after']:.3f}",
        number(*found.loss_change, signed=True) if found.loss_change else DASH,
        f"x{interval([math.exp(bound) for bound in limits_of(total)])}" if total else DASH,
        with_limits(js),
        f"{js['null_p95']:.2g}" if js["null_p95"] is not None else DASH,
        str(found.test).removeprefix("p ").removeprefix("= ") if found.test else DASH,
        str(before) if before == after else f"{before} → {after}",
    ]

"""All probes in one table: loss, total and layer shares of each, first measurement against last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ....foundation.run_names import layer_number
from ...run import Run
from ..estimates import interval
from ..figures.pairs import limits_of
from ..movements import Movement, movement
from ..numbers import number
from .table import DASH, Table

_NOTE = (
    "First measurement against last. Loss: nats per token, mean over the examples; of questions that of the answers, "
    "of plain text that of every token. Its change: on the same examples, in brackets Student's 95 % interval. Total: "
    "of the importance, last over first. JS distance of the layer shares, in [0, 1]; p of its paired permutation "
    "(before and after exchanged within examples): whether these examples moved. In other brackets 90 % bootstrap "
    "intervals over the examples. On questions, loss and importance also fall as the model fits to the form of the "
    "answers; on plain text a rise of the loss is text lost."
)
_HEAD = ["probe", "of", "estimator", "examples", "loss", "its change", "total", "JS distance", "p", "peak layer"]


def probe_table(runs: Sequence[Run]) -> Table | None:
    """Makes the table, a row a probe and estimator of each run; None where nothing was measured twice."""
    rows = []
    for run in runs:
        for pair in run.importance.pairs:
            found = movement(run, *pair)
            if found.shift is not None:
                rows.append([*([run.name] if len(runs) > 1 else []), *_cells(found)])
    head = ["run", *_HEAD] if len(runs) > 1 else _HEAD
    return Table("What training did on each probe", head, rows, _NOTE) if rows else None


def _cells(found: Movement) -> list[str]:
    shift = found.shift
    assert shift is not None  # probe_table has asked
    total = shift["metrics"].get("log_total_ratio")
    before, after = layer_number(shift["peak_before"]), layer_number(shift["peak_after"])
    return [
        found.probe,
        "plain text" if found.plain else "questions",
        found.estimator,
        str(found.last.get("examples", DASH)),
        f"{shift['loss_before']:.3f} → {shift['loss_after']:.3f}",
        number(*found.loss_change, signed=True) if found.loss_change else DASH,
        f"x{interval([math.exp(bound) for bound in limits_of(total)])}" if total else DASH,
        interval(limits_of(shift["metrics"]["js"])),
        str(found.test).removeprefix("p ").removeprefix("= ") if found.test else DASH,
        str(before) if before == after else f"{before} → {after}",
    ]

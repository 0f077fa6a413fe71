"""The heat maps of a run, layers by measurements: pictures while it trains, and a table at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger

from ...foundation.run_names import importance_picture
from ...importance.picture import heat_map
from ..loggers.media import log_heat_map_table, log_picture

MAX_ROWS = 10_000
"""W&B draws custom charts of tables up to this length."""


def is_due(count: int, limit: int) -> bool:
    """Returns whether the ``count``-th measurement gets a picture.

    The first quarter of the pictures goes to the first measurements; then every second one is drawn, every fourth, and
    so on with each doubling, until all are spent. A picture holds all measurements so far, so none is lost.

    Args:
        count: 1 for the first measurement.
        limit: Pictures at most.
    """
    spent = sum(count % _stride(count, limit) == 0 for count in range(1, count))
    return spent < limit and count % _stride(count, limit) == 0


def _stride(count: int, limit: int) -> int:
    doublings = count / max(1.0, limit / 4)
    return 1 << math.ceil(math.log2(max(1.0, doublings)))


class HeatMaps:
    """Draws what a run has measured so far, one picture per probe with one panel per estimator.

    Args:
        limit: Pictures a probe at most, the one at the end of the fit aside: W&B allows a run 1000 files.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def log(self, loggers: Sequence[Logger], history: Sequence[dict[str, Any]], step: int) -> None:
        """Sends the pictures to all loggers, if they are due.

        Args:
            loggers: Of the trainer.
            history: The tracker's lines up to now, by step.
            step: Of the last measurement.
        """
        for probe in dict.fromkeys(line["probe"] for line in history):
            if is_due(len({line["step"] for line in history if line["probe"] == probe}), self.limit):
                self._draw(loggers, history, probe, step)

    def finish(self, loggers: Sequence[Logger], history: Sequence[dict[str, Any]], step: int) -> None:
        """Sends the last pictures and the tables."""
        for probe in dict.fromkeys(line["probe"] for line in history):
            measured = len({line["step"] for line in history if line["probe"] == probe})
            if self.limit and not is_due(measured, self.limit):
                self._draw(loggers, history, probe, step)
            rows = _rows([line for line in history if line["probe"] == probe])
            title = f"Layer shares of importance, {probe} (%)"
            for logger in loggers:
                log_heat_map_table(logger, importance_picture(probe, "shares"), rows, title, step)

    @staticmethod
    def _draw(loggers: Sequence[Logger], history: Sequence[dict[str, Any]], probe: str, step: int) -> None:
        lines = [line for line in history if line["probe"] == probe]
        steps = sorted({line["step"] for line in lines})
        shares: dict[str, list[list[float]]] = {}
        for line in lines:
            shares.setdefault(line["estimator"], []).append(line["shares"])
        # An estimator that was added when the run was continued has fewer columns: it gets no panel.
        pixels = heat_map({name: rows for name, rows in shares.items() if len(rows) == len(steps)}, steps)
        for logger in loggers:
            log_picture(logger, importance_picture(probe, "heat_map"), pixels, step)


def _rows(lines: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Returns (step, layer, estimator, share in percent); leaves out steps evenly where there are too many rows."""
    size = sum(len(line["shares"]) for line in lines if line["step"] == lines[-1]["step"])
    steps = sorted({line["step"] for line in lines})
    kept = max(2, MAX_ROWS // max(size, 1))
    if len(steps) > kept:
        steps = [steps[round(i * (len(steps) - 1) / (kept - 1))] for i in range(kept)]
    chosen = set(steps)
    return [
        [line["step"], layer, line["estimator"], round(100 * share, 4)]
        for line in lines
        if line["step"] in chosen
        for layer, share in enumerate(line["shares"])
    ]

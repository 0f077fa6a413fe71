"""What training did on each probe: loss and importance of its examples, first measurement against last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ...evaluation import mean_interval
from ..measurements import Measurement, ShiftRecord
from ..run import Run
from .numbers import Limits
from .paired_p import PairedP, paired_p

if TYPE_CHECKING:
    from ...importance import Snapshot


@dataclass(frozen=True)
class Movement:
    """A probe by one estimator at both ends.

    Attributes:
        probe: Its name.
        estimator: Name of the score.
        plain: Whether it is plain text; otherwise it is questions, and the loss is that of the answers.
        first: The first measurement.
        last: The last one, or the first one if there is no other.
        shift: Of the last against the first; None if nothing can have shifted yet.
        loss_change: Mean over the examples, nats per token, with its paired 95 % limits; None if unknown.
        test: Whether the examples' importance moved; None if that cannot be tested.
    """

    probe: str
    estimator: str
    plain: bool
    first: Measurement
    last: Measurement
    shift: ShiftRecord | None = None
    loss_change: Limits | None = None
    test: PairedP | None = None


def movement(run: Run, probe: str, estimator: str) -> Movement:
    """Returns what a run measured on a probe by an estimator."""
    lines = run.importance.of(probe, estimator)
    first, last = lines[0], lines[-1]
    shift = last.get("shift")
    plain = bool(last.get("plain"))
    if shift is None or first["step"] == last["step"]:
        return Movement(probe, estimator, plain, first, last)
    ends = partial(_ends, run, probe, (first["step"], last["step"]))
    test = paired_p(shift, estimator, ends)
    return Movement(probe, estimator, plain, first, last, shift, _loss_change(run, last, probe, first["step"]), test)


def movements(run: Run) -> Iterator[Movement]:
    """Yields each probe's movement by its first estimator, on which verdicts are based."""
    for probe in run.importance.probes:
        yield movement(run, probe, next(e for p, e in run.importance.pairs if p == probe))


def _ends(run: Run, probe: str, steps: tuple[int, int]) -> tuple[Snapshot | None, Snapshot | None]:
    return run.importance.snapshot(probe, steps[0]), run.importance.snapshot(probe, steps[1])


def _loss_change(run: Run, last: Measurement, probe: str, start: int) -> Limits | None:
    """Returns the line's values, or else those of the snapshots: earlier versions wrote losses only there."""
    written = last.get("loss_change")
    if written is not None:
        return written[0], written[1], written[2]
    from ...importance.paired_losses import loss_changes

    before, after = _ends(run, probe, (start, last["step"]))
    if before is None or after is None:
        return None
    try:
        value, low, high = mean_interval(loss_changes(before, after).tolist())
    except ValueError:
        return None
    return value, low, high

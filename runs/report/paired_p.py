"""The paired test of a shift, for lines of ``importance/summary.jsonl`` of any version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ...evaluation import shown_p
from ..measurements import ShiftRecord

if TYPE_CHECKING:
    from ...importance import Snapshot

LEVEL = 0.05


class PairedP(NamedTuple):
    """A p-value of the paired permutation test of the Jensen-Shannon distance.

    Attributes:
        p: The p-value.
        floor: The smallest value that the test can give.
    """

    p: float
    floor: float

    @property
    def shifted(self) -> bool:
        """Whether the examples moved, at the level of 5 %."""
        return self.p < LEVEL

    def __str__(self) -> str:
        shown = shown_p(self.p, self.floor)
        return f"p {shown}" if shown[0] == "<" else f"p = {shown}"


def paired_p(
    shift: ShiftRecord, estimator: str, ends: Callable[[], tuple[Snapshot | None, Snapshot | None]]
) -> PairedP | None:
    """Returns the test in a line, or else that of the run's snapshots; None if neither exists.

    Args:
        shift: Of a summary line.
        estimator: The line's.
        ends: Loads the snapshots of reference and line.
    """
    p, floor = shift["metrics"]["js"].get("p"), shift.get("p_floor")
    if p is not None and floor is not None:
        return PairedP(float(p), float(floor))
    if shift.get("untested"):
        return None
    from ...importance.shift import paired_test  # it imports torch, which most reports do not need

    try:
        before, after = ends()
        if before is None or after is None:
            return None
        test = paired_test(before, after, estimator)
    except (OSError, ValueError):
        return None
    return PairedP(test.p["js"], test.floor)

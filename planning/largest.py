"""The largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable

from .moments import Moment

SLACK = 0.98  # what the rounding of rows and positions may be wrong by


def largest_budget(rehearse: Callable[[int], Moment], configured: int, length: int, room: int) -> Moment | None:
    """Finds the most positions of a batch whose moment fits, to a row.

    Memory grows by as much with every row: two batches tell by how much, and a third one, of the size that follows,
    is rehearsed before it is believed.

    Args:
        rehearse: Budget of positions to the moment of a full batch.
        configured: The config's budget.
        length: Positions of a row.
        room: Bytes.

    Returns:
        The moment of the largest batch, or None where not even one row fits.
    """
    one = rehearse(length)
    if one.total > room:
        return None
    more = rehearse(max(configured, 2 * length))
    growth = (more.total - one.total) / max(1, more.rows - one.rows)
    rows = 1 + int((room - one.total) / growth * SLACK) if growth > 0 else more.rows
    while rows > 1:
        found = rehearse(rows * length)
        if found.total <= room or found.rows < rows:
            return found
        rows = int(rows * SLACK) if int(rows * SLACK) < rows else rows - 1
    return one

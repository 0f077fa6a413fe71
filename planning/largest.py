"""The largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable

from .moments import Moment

SLACK = 0.98  # what the rounding of rows and positions may be wrong by
LEAP = 64
"""How many times the rows of a batch that fits are tried next at most: the first few may cost nothing, for the peak of
a tiny batch is not where its activations are."""
GAIN = 0.03  # of the rows: less is not worth another rehearsal
TRIES = 12


def largest_budget(rehearse: Callable[[int], Moment], configured: int, length: int, room: int) -> Moment | None:
    """Finds the most positions of a batch whose moment fits, to about 3 % of its rows.

    Memory never falls with more rows, and mostly grows by as much with each: two batches tell by how much, the size
    that follows is rehearsed, and what it shows bounds the next one.

    Args:
        rehearse: Budget of positions to the moment of a full batch.
        configured: The config's budget.
        length: Positions of a row.
        room: Bytes.

    Returns:
        The moment of the largest batch, or None where not even one row fits.
    """
    fits, fewer, too_high = rehearse(length), None, None
    if fits.total > room:
        return None
    budget = max(configured, 2 * length)
    for _ in range(TRIES):
        found = rehearse(budget)
        if found.total > room:
            too_high = found
        elif found.rows <= fits.rows:
            return fits
        else:
            fits, fewer = found, fits
            if found.rows < budget // length:  # a batch takes no more
                return fits
        rows = _next_rows(fits, fewer, too_high, room)
        if rows <= fits.rows:
            return fits
        budget = rows * length
    return fits


def _next_rows(fits: Moment, fewer: Moment | None, too_high: Moment | None, room: int) -> int:
    """Returns the rows to try next, on the line through two batches; those of ``fits`` if there is little to gain."""
    one, other = (fits, too_high) if too_high is not None else (fewer, fits)
    assert one is not None
    assert other is not None
    growth = (other.total - one.total) / max(1, other.rows - one.rows)
    most = LEAP * fits.rows if too_high is None else too_high.rows - 1
    rows = most if growth <= 0 else min(most, fits.rows + int((room - fits.total) / growth * SLACK))
    return rows if rows - fits.rows > GAIN * fits.rows else fits.rows

"""Lets a long measurement be stopped between two of its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

from .signal_connector import agreement_of


def give_way(trainer: Trainer) -> None:
    """Checks whether the run is to stop; call it between the items of a measurement, equally often on every rank.

    Args:
        trainer: With ``GracefulStop`` among its callbacks; without, nothing happens.

    Raises:
        AgreedStop: On all ranks alike, a ``KeyboardInterrupt`` or ``SIGTERMException``. The measurement must put back
            what it changed, and keep nothing: it is done again after the resume.
    """
    if (agreement := agreement_of(trainer)) is not None:
        agreement.reach()
        agreement.hold_to()


@contextmanager
def taking_turns(trainer: Trainer) -> Iterator[Callable[[], None]]:
    """Lets ranks with different numbers of items give way; all of them must call this.

    Args:
        trainer: As for :func:`give_way`.

    Yields:
        What gives way, to be called before an item. At the end the ranks wait for the one with the most items.
    """
    agreement = agreement_of(trainer)

    def look() -> None:
        if agreement is not None:
            agreement.reach()
            agreement.hold_to()

    yield look
    while agreement is not None and agreement.reach(working=False):
        agreement.hold_to()
    if agreement is not None:
        agreement.hold_to()


class Rounds:
    """Gives way before each item of a loop that is not ours, as often as the rank with the fewest items allows.

    So no rank looks while another is at an item, which may need all ranks. To be made on every rank.

    Args:
        trainer: As for :func:`give_way`.
        items: Of this rank; not finite gives no rounds.
    """

    def __init__(self, trainer: Trainer, items: float) -> None:
        self._trainer = trainer
        agreement = agreement_of(trainer)
        count = int(items) if items < float("inf") else 0
        self._left = 0 if agreement is None else -agreement.largest(-count)[0]

    def look(self) -> None:
        """Gives way if there are rounds left; call it before an item."""
        if self._left > 0:
            self._left -= 1
            give_way(self._trainer)

    def look_to_the_end(self) -> None:
        """Gives way in the rounds for which there was no item; call it after the last one."""
        while self._left > 0:
            self.look()

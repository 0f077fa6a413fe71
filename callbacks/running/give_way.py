"""Lets a long measurement be stopped between two of its items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from lightning.pytorch import Trainer

from .signal_connector import agreement_of

Item = TypeVar("Item")


def give_way(trainer: Trainer) -> None:
    """Looks whether the run is to stop; to be called between the items of a measurement, as often on every rank.

    Args:
        trainer: With ``GracefulStop`` among its callbacks; without, nothing happens.

    Raises:
        AgreedStop: On all ranks alike, a ``KeyboardInterrupt`` or ``SIGTERMException``. The measurement must put back
            what it changed, and keep nothing: it is done again after the resume.
    """
    if (agreement := agreement_of(trainer)) is not None:
        agreement.reach()
        agreement.hold_to()


class Rounds:
    """Gives way before each item where the ranks have different numbers of items; to be made on every rank.

    Args:
        trainer: As for :func:`give_way`.
        items: Of this rank; not finite gives no rounds.
        all_items: Whether there are as many rounds as the rank with the most items has, or with the fewest: then no
            rank looks while another is at an item, which may need all ranks.
    """

    def __init__(self, trainer: Trainer, items: float, all_items: bool = True) -> None:
        self._trainer = trainer
        count, agreement = int(items) if items < float("inf") else 0, agreement_of(trainer)
        if agreement is not None:
            count = agreement.largest(count) if all_items else -agreement.largest(-count)
        self._left = count

    def look(self) -> None:
        """Gives way, if there are rounds left; to be called before an item."""
        if self._left > 0:
            self._left -= 1
            give_way(self._trainer)

    def look_to_the_end(self) -> None:
        """Joins the rounds of ranks that have more items; to be called after the last one."""
        while self._left > 0:
            self.look()


def in_rounds(trainer: Trainer, items: Iterable[Item], count: int) -> Iterator[Item]:
    """Gives the items, and way before each of them; to be used to the end on every rank.

    Args:
        trainer: As for :func:`give_way`.
        items: This rank's.
        count: How many there are; fewer may come.
    """
    rounds = Rounds(trainer, count)
    iterator = iter(items)
    while True:
        rounds.look()
        try:
            item = next(iterator)
        except StopIteration:
            break
        yield item
    rounds.look_to_the_end()

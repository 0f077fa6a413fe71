"""How a long measurement tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how many parts of it are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def counted(items: Sequence[Item], what: str, progress: Progress) -> Iterator[Item]:
    """Goes through the items, and tells ``progress`` after each one how many are done."""
    progress(what, 0, len(items))
    for number, item in enumerate(items, start=1):
        yield item
        progress(what, number, len(items))

"""How a long measurement reports its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how many parts are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Ignores the report."""


def counted(items: Sequence[Item], what: str, progress: Progress) -> Iterator[Item]:
    """Yields the items, and reports to ``progress`` after each one how many are done."""
    progress(what, 0, len(items))
    for number, item in enumerate(items, start=1):
        yield item
        progress(what, number, len(items))

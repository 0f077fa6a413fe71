"""The moments of a fit in which memory is highest, and what is in memory then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Moment:
    """One kind of work in a fit.

    Attributes:
        name: For tables.
        parts: Label -> bytes on one rank at its peak.
        flops: Floating-point operations of one batch; 0 where they are not counted.
        rows: Rows of the batch.
        positions: Rows times the longest row.
    """

    name: str
    parts: Mapping[str, int]
    flops: int = 0
    rows: int = 0
    positions: int = 0

    @property
    def total(self) -> int:
        """Bytes on one rank."""
        return sum(self.parts.values())


class Sizes(NamedTuple):
    """Bytes that a fit keeps in memory throughout, and writes to disk.

    Attributes:
        parameters: Part of the model -> its parameters, trained ones first: (trained, all).
        trained: Bytes of the weights that train.
        optimizer: Bytes of the optimizer's state.
        gradients: Bytes of the gradients.
    """

    parameters: dict[str, tuple[int, int]]
    trained: int
    optimizer: int
    gradients: int


@dataclass
class Rehearsed:
    """What a rehearsal has found.

    Attributes:
        moments: In the order of a fit.
        sizes: What is there for good.
        left_out: What could not be rehearsed, and why.
    """

    moments: list[Moment]
    sizes: Sizes
    left_out: list[str] = field(default_factory=list)

    @property
    def highest(self) -> Moment:
        """The moment that decides whether a fit fits."""
        return max(self.moments, key=lambda moment: moment.total)

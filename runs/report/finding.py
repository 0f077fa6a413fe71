"""The parts of a verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of a verdict.

    Attributes:
        topic: What it is about.
        mark: ``good``, ``bad``, ``same``, ``open`` (the interval does not decide) or ``plain`` (a fact).
        text: The statement.
        short: The same as the start of a headline; empty if it cannot lead one.
    """

    topic: str
    mark: str
    text: str
    short: str = ""

"""``textkeep watch RUN``: a run in the terminal, live, from its directory alone."""

from .command import main

__all__ = ["main"]

"""``textkeep study``: many runs of one plan, and what became of them."""

from .command import main

__all__ = ["main"]

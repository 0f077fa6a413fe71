"""``textkeep importance``: measures, compares, tests and explains importance, without a training run."""

from .command import main

__all__ = ["main"]

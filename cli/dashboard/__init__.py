"""``textkeep dashboard``: a W&B workspace for runs of TextKeep, built in code."""

from .command import main

__all__ = ["main"]

"""``textkeep interpolate``: models between the untouched LLM and a run's, scored."""

from .command import main

__all__ = ["main"]

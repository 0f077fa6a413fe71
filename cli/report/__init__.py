"""TextKeep's report: reads run directories, writes one HTML page."""

from .command import main

__all__ = ["main"]

"""Run directories, read and written without a model: the directory, its one reader, pages, studies.

Example:
    ``Run.open("outputs/quickstart").metrics["train/loss"]``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..foundation.lazy_exports import from_modules

if TYPE_CHECKING:
    from .run import Run as Run
    from .run import open_runs as open_runs

_PUBLIC = {"Run": "run", "open_runs": "run"}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

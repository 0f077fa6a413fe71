"""Callbacks and loggers: when a run measures, saves and reports."""

from __future__ import annotations

from ..foundation.lazy_exports import from_folders
from . import budget, evaluations, importance, loggers, progress, saving, stopping

_FOLDERS = (budget, evaluations, importance, loggers, progress, saving, stopping)

__all__ = sorted(name for folder in _FOLDERS for name in folder.__all__)
__getattr__ = from_folders(__name__, *_FOLDERS)

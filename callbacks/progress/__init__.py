"""Callbacks that report how a run proceeds: progress, and the examples that were left out."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "LogProgress": "log_progress",
    "RunProgressBar": "run_progress_bar",
    "RunSummary": "run_summary",
    "SkippedExamples": "skipped_examples",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

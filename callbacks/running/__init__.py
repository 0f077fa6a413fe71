"""Callbacks about the run itself: saving, stopping, progress."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "GracefulStop": "graceful_stop",
    "LogProgress": "log_progress",
    "RunCheckpoint": "checkpoint",
    "RunProgressBar": "run_progress_bar",
    "SeededBatches": "seeded_batches",
    "SkippedExamples": "skipped_examples",
    "StepCompletion": "step_completion",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

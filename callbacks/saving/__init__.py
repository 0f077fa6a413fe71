"""Callbacks that save a run, and let it continue from a checkpoint as if undisturbed."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "RunCheckpoint": "checkpoint",
    "SeededBatches": "seeded_batches",
    "StepCompletion": "step_completion",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

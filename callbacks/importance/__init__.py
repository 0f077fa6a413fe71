"""Callbacks that measure where the text knowledge lives, and how it shifts."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "ImportanceTrack": "importance_track",
    "ImportanceTracker": "importance_tracker",
    "ImportanceTrainerCallback": "trainer_callback",
    "SubspaceOverlap": "subspace_overlap",
    "TuningImportance": "tuning_importance",
    "WeightChange": "weight_change",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

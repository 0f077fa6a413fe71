"""What a run takes in memory, time and disk, before anything is loaded.

Example:
    ``textkeep plan configs/llama_omni_8b.yaml --gpus 8 --gpu-memory 80GB``
"""

from __future__ import annotations

from ..foundation.lazy_exports import from_modules

_PUBLIC = {
    "Length": "plan",
    "Machine": "machine",
    "Plan": "plan",
    "Question": "question",
    "TrainerSettings": "stepping",
    "make_plan": "plan",
    "measure_steps": "measured",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

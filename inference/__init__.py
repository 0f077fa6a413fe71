"""A trained model in use, from Python: load a run, ask it, score it.

Example:
    ``load("outputs/quickstart").ask(audio="question.wav")``
"""

from __future__ import annotations

from ..foundation.lazy_exports import from_modules

_PUBLIC = {
    "LoadedModel": "loaded_model",
    "load": "loading",
    "read_examples": "examples",
    "text_probes": "following",
    "track": "following",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

"""Spoken and text questions: examples, sources, prompts, batches, loaders."""

from __future__ import annotations

from typing import Any

from ..foundation.lazy_exports import from_folders, from_modules
from . import batches, sources

_PUBLIC = {"Probe": "probes", "Replay": "replay", "SpeechTextData": "speech_text_data"}

__all__ = sorted([*_PUBLIC, *batches.__all__, *sources.__all__])


def __getattr__(name: str) -> Any:
    own = name in _PUBLIC
    return (from_modules(__name__, _PUBLIC) if own else from_folders(__name__, batches, sources))(name)

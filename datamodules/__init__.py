"""Spoken and text questions: examples, sources, prompts, batches, loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..foundation.lazy_exports import from_modules
from . import batches, sources
from .batches import *  # noqa: F403
from .sources import *  # noqa: F403

if TYPE_CHECKING:
    from .probes import Probe as Probe
    from .replay import Replay as Replay
    from .speech_text_data import SpeechTextData as SpeechTextData

_WITH_LIGHTNING = {"Probe": "probes", "Replay": "replay", "SpeechTextData": "speech_text_data"}
"""Imported at their first use: what reads a manifest need not wait for Lightning."""

__all__ = sorted([*_WITH_LIGHTNING, *batches.__all__, *sources.__all__])
__getattr__ = from_modules(__name__, _WITH_LIGHTNING)

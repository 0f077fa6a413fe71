"""The speech LLM and its parts: encoders, adaptors, tuning strategies, objectives."""

from . import objectives, tuning
from .ears import adaptors, encoders
from .ears.adaptors import *  # noqa: F403
from .ears.encoders import *  # noqa: F403
from .ears.own_ear import OwnEar as OwnEar
from .objectives import *  # noqa: F403
from .sharding import FSDP2 as FSDP2
from .speech_llm import SpeechLLM as SpeechLLM
from .tuning import *  # noqa: F403

_FOLDERS = (adaptors, encoders, objectives, tuning)

__all__ = sorted(["FSDP2", "OwnEar", "SpeechLLM", *(name for folder in _FOLDERS for name in folder.__all__)])

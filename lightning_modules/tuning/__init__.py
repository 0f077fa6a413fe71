"""Tuning strategies: what moves while speech is learned, and how fast."""

from .adaptor_only import AdaptorOnly
from .full_fine_tuning import FullFineTuning
from .importance_user import ImportanceRequest, ImportanceUser
from .lora import LoRA
from .masks import WeightMask
from .partial_fine_tuning import PartialFineTuning
from .rates import LayerRates
from .speech_gate import SpeechGate, SpeechPositions, SpeechTurns
from .tuning import ParameterGroup, Tuning

__all__ = [
    "AdaptorOnly",
    "FullFineTuning",
    "ImportanceRequest",
    "ImportanceUser",
    "LayerRates",
    "LoRA",
    "ParameterGroup",
    "PartialFineTuning",
    "SpeechGate",
    "SpeechPositions",
    "SpeechTurns",
    "Tuning",
    "WeightMask",
]

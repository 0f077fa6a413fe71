"""Tuning strategies: what moves while speech is learned, and how fast."""

from .adapter_starts import EVA, AdapterStart, OLoRA, PiSSA
from .adaptor_only import AdaptorOnly
from .depth_up_scaling import DepthUpScaling
from .full_fine_tuning import FullFineTuning
from .importance_user import ImportanceRequest, ImportanceUser
from .layer_ranks import ImportanceRanks, LayerRanks
from .lora import LoRA
from .masks import WeightMask
from .oplora import OPLoRA
from .partial_fine_tuning import PartialFineTuning
from .qlora import QLoRA
from .rates import LayerRates
from .speech_gate import SpeechGate, SpeechPositions, SpeechTurns
from .tuning import ParameterGroup, Tuning

__all__ = [
    "EVA",
    "AdapterStart",
    "AdaptorOnly",
    "DepthUpScaling",
    "FullFineTuning",
    "ImportanceRanks",
    "ImportanceRequest",
    "ImportanceUser",
    "LayerRanks",
    "LayerRates",
    "LoRA",
    "OLoRA",
    "OPLoRA",
    "ParameterGroup",
    "PartialFineTuning",
    "PiSSA",
    "QLoRA",
    "SpeechGate",
    "SpeechPositions",
    "SpeechTurns",
    "Tuning",
    "WeightMask",
]

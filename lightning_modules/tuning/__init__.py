"""Tuning strategies: what trains while speech is learned, and how fast."""

from . import masks, rates
from .adaptor_only import AdaptorOnly
from .depth_up_scaling import DepthUpScaling
from .full_fine_tuning import FullFineTuning
from .layer_ranks import ImportanceRanks, LayerRanks
from .lora import LoRA
from .lora_starts import EVA, AdapterStart, OLoRA, PiSSA
from .masks import *  # noqa: F403
from .oplora import OPLoRA
from .partial_fine_tuning import PartialFineTuning
from .qlora import QLoRA
from .rates import *  # noqa: F403
from .speech_gate import SpeechGate, SpeechPositions, SpeechTurns
from .tuning import ParameterGroup, Tuning, llm_groups, trainable

__all__ = [
    "EVA",
    "AdapterStart",
    "AdaptorOnly",
    "DepthUpScaling",
    "FullFineTuning",
    "ImportanceRanks",
    "LayerRanks",
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
    "llm_groups",
    "trainable",
    *masks.__all__,
    *rates.__all__,
]

"""The speech LLM and its parts: encoders, adaptors, tuning strategies, objectives."""

from .adaptors import Adaptor, ConcatMLP, StackSwiGLU, StackTransformer
from .encoders import HFEncoder, SpeechEncoder, WhisperEncoder
from .objectives import (
    EWC,
    L2SP,
    AnswerCrossEntropy,
    CachedTeacher,
    CTCAlignment,
    LiveTeacher,
    Objective,
    Teacher,
    TextTwinDistillation,
)
from .speech_llm import SpeechLLM
from .tuning import (
    AdaptorOnly,
    FullFineTuning,
    LoRA,
    PartialFineTuning,
    SpeechGate,
    SpeechPositions,
    SpeechTurns,
    Tuning,
)
from .tuning.masks import ImportanceMask, RandomMask, WeightMask
from .tuning.rates import (
    ExponentialDepthRates,
    ImportanceRates,
    LayerRates,
    LinearDepthRates,
    ListedRates,
    PermutedRates,
    ReversedRates,
    UniformRates,
)

__all__ = [
    "EWC",
    "L2SP",
    "Adaptor",
    "AdaptorOnly",
    "AnswerCrossEntropy",
    "CTCAlignment",
    "CachedTeacher",
    "ConcatMLP",
    "ExponentialDepthRates",
    "FullFineTuning",
    "HFEncoder",
    "ImportanceMask",
    "ImportanceRates",
    "LayerRates",
    "LinearDepthRates",
    "ListedRates",
    "LiveTeacher",
    "LoRA",
    "Objective",
    "PartialFineTuning",
    "PermutedRates",
    "RandomMask",
    "ReversedRates",
    "SpeechEncoder",
    "SpeechGate",
    "SpeechLLM",
    "SpeechPositions",
    "SpeechTurns",
    "StackSwiGLU",
    "StackTransformer",
    "Teacher",
    "TextTwinDistillation",
    "Tuning",
    "UniformRates",
    "WeightMask",
    "WhisperEncoder",
]

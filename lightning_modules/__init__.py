"""The speech LLM and its parts: encoders, adaptors, tuning strategies, objectives."""

from .adaptors import Adaptor, ConcatMLP, StackSwiGLU, StackTransformer
from .encoders import HFEncoder, SpeechEncoder, WhisperEncoder
from .objectives import AnswerCrossEntropy, CTCAlignment, Objective
from .speech_llm import SpeechLLM
from .tuning import AdaptorOnly, FullFineTuning, Tuning
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
    "Adaptor",
    "AdaptorOnly",
    "AnswerCrossEntropy",
    "CTCAlignment",
    "ConcatMLP",
    "ExponentialDepthRates",
    "FullFineTuning",
    "HFEncoder",
    "ImportanceRates",
    "LayerRates",
    "LinearDepthRates",
    "ListedRates",
    "Objective",
    "PermutedRates",
    "ReversedRates",
    "SpeechEncoder",
    "SpeechLLM",
    "StackSwiGLU",
    "StackTransformer",
    "Tuning",
    "UniformRates",
    "WhisperEncoder",
]

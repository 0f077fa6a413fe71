"""The speech LLM and its parts: encoders, adaptors, tuning strategies, objectives."""

from .adaptors import Adaptor, ConcatMLP, StackSwiGLU, StackTransformer
from .encoders import HFEncoder, SpeechEncoder, WhisperEncoder
from .objectives import AnswerCrossEntropy, CTCAlignment, Objective
from .speech_llm import SpeechLLM
from .tuning import AdaptorOnly, FullFineTuning, Tuning

__all__ = [
    "Adaptor",
    "AdaptorOnly",
    "AnswerCrossEntropy",
    "CTCAlignment",
    "ConcatMLP",
    "FullFineTuning",
    "HFEncoder",
    "Objective",
    "SpeechEncoder",
    "SpeechLLM",
    "StackSwiGLU",
    "StackTransformer",
    "Tuning",
    "WhisperEncoder",
]

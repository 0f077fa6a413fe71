"""Speech encoders: features to frames."""

from .hf_encoder import HFEncoder
from .speech_encoder import SpeechEncoder
from .whisper_encoder import WhisperEncoder

__all__ = ["HFEncoder", "SpeechEncoder", "WhisperEncoder"]

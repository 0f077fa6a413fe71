"""A speech engine for tests: a tone for each word, as high as the voice's name says."""

import numpy as np

from textkeep.preparation.speech.waveform import Waveform

said: list[tuple[str, str, float, float]] = []


class ToneEngine:
    """Says a text as sine waves at 24 kHz, 0.1 s a word."""

    name = "tone"
    voices = ("low", "mid", "high", "mute")

    def synthesize(self, text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> tuple[Waveform, int]:
        """A tone; the voice ``mute`` has none."""
        said.append((text, voice, rate, pitch))
        if voice == "mute":
            raise ValueError(f"tone:{voice} made no sound of {text!r}")
        hertz = {"low": 200.0, "mid": 400.0, "high": 800.0}[voice] * pitch
        time = np.arange(int(24000 * 0.1 * len(text.split()) / rate)) / 24000
        return (0.2 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), 24000

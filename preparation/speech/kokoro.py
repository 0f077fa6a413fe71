"""Kokoro-82M (int8 ONNX): natural English voices at 24 kHz, about as fast as speech on one core."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...foundation.assets import locate
from .engine import Waveform
from .phonemes import Phonemizer

SAMPLING_RATE = 24000
MODEL = "kokoro-v1.0.int8.onnx"
MOST_PHONEMES = 508
"""Longest text in phonemes: the style tables have 510 rows, one for each length, and two are the ends."""

QUIET, MARGIN = 0.01, 720
"""Amplitude below which the ends are cut off, and the samples of silence that stay there (30 ms)."""


class KokoroEngine:
    """Kokoro with the American and British voices of kokoro-js."""

    name = "kokoro"

    def __init__(self, folder: Path | None = None, threads: int = 1):
        """Find the model.

        Args:
            folder: Unpacked asset; by default the asset ``kokoro``.
            threads: Threads of one synthesis.

        Raises:
            FileNotFoundError: If the asset is not there.
        """
        self._folder = folder or locate("kokoro")
        self._threads = threads
        self._styles: dict[str, Waveform] = {}

    @cached_property
    def voices(self) -> tuple[str, ...]:
        """Names of the style tables; the first letter is the accent, the second the sex."""
        return tuple(sorted(path.stem for path in (self._folder / "voices").glob("[ab]*.bin")))

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("Kokoro needs onnxruntime: pip install 'textkeep[speak]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(self._folder / MODEL), options, providers=["CPUExecutionProvider"])

    @cached_property
    def _phonemes(self) -> Phonemizer:
        return Phonemizer(self._folder)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        vocabulary: dict[str, int] = json.loads((self._folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        return vocabulary

    def _style(self, voice: str) -> Waveform:
        if voice not in self.voices:
            raise ValueError(f"kokoro has no voice {voice!r}; allowed: {', '.join(self.voices)}")
        if voice not in self._styles:
            table = np.fromfile(self._folder / "voices" / f"{voice}.bin", np.float32)
            self._styles[voice] = table.reshape(-1, 256)
        return self._styles[voice]

    def synthesize(self, text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> tuple[Waveform, int]:
        """Say a text; the pitch belongs to the voice. See ``SpeechEngine.synthesize``.

        Raises:
            ValueError: If the voice is unknown or made no sound.
        """
        style = self._style(voice)
        phonemes = self._phonemes(text, british=voice.startswith("b"))
        tokens = [self._vocabulary[c] for c in phonemes if c in self._vocabulary][:MOST_PHONEMES]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), len(style)) - 1].reshape(1, 256),
            "speed": np.array([rate], np.float32),
        }
        waveform = self._session.run(None, inputs)[0].ravel()
        loud = np.flatnonzero(np.abs(waveform) > QUIET)
        if not len(loud):
            raise ValueError(f"kokoro:{voice} made no sound of {text!r}")
        return waveform[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN], SAMPLING_RATE

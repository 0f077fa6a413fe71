"""Kokoro-82M (int8 ONNX): natural English voices at 24 kHz, about as fast as speech on one core.

The package kokoro-onnx makes phonemes of the text (espeak-ng) and runs the model; the voices are the asset's.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from ...foundation.assets import locate
from .waveform import Waveform

if TYPE_CHECKING:
    from kokoro_onnx import Kokoro

MODEL = "kokoro-v1.0.int8.onnx"
SOUNDS = str.maketrans({"r": "\u0279", "x": "k", "\u02b2": "j"})
"""Sounds of names from other languages (Kyrgyzstan, Liechtenstein), in those that Kokoro's English voices learned."""

DECIMALS = re.compile(r"(?<=\d)\.(\d+)")
"""The fraction of a number, which espeak-ng takes for another sentence."""

QUIET, MARGIN = 0.01, 720
"""Amplitude below which the ends are cut off, and the samples of silence that stay there (30 ms)."""


class KokoroEngine:
    """Kokoro with the American and British voices of kokoro-js."""

    name = "kokoro"

    def __init__(self, folder: Path | None = None, threads: int = 1):
        """Finds the model.

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
    def _model(self) -> Kokoro:
        try:
            import onnxruntime
            from kokoro_onnx import Kokoro
        except ImportError as error:
            raise ImportError("Kokoro needs kokoro-onnx: pip install 'textkeep[speak]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        path = str(self._folder / MODEL)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        with TemporaryDirectory() as folder:
            voices = Path(folder) / "voices.npz"
            np.savez(voices)  # empty: the package reads all voices from one file, ours are handed over as arrays
            return Kokoro.from_session(session, str(voices))

    def _style(self, voice: str) -> Waveform:
        """Reads the style table of a voice, (510, 1, 256): one row for each number of phonemes."""
        if voice not in self.voices:
            raise ValueError(f"kokoro has no voice {voice!r}; allowed: {', '.join(self.voices)}")
        if voice not in self._styles:
            table = np.fromfile(self._folder / "voices" / f"{voice}.bin", np.float32)
            self._styles[voice] = table.reshape(-1, 1, 256)
        return self._styles[voice]

    def synthesize(self, text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> tuple[Waveform, int]:
        """Says a text; the pitch belongs to the voice and is not changed.

        Raises:
            ValueError: If the voice is unknown or made no sound.
        """
        style, language = self._style(voice), "en-gb" if voice.startswith("b") else "en-us"
        spelled = DECIMALS.sub(lambda found: f" point {' '.join(found[1])}", text)
        phonemes = self._model.tokenizer.phonemize(spelled, language).translate(SOUNDS)
        waveform, sampling_rate = self._model.create(phonemes, style, speed=rate, is_phonemes=True, trim=False)
        loud = np.flatnonzero(np.abs(waveform) > QUIET)
        if not len(loud):
            raise ValueError(f"kokoro:{voice} made no sound of {text!r}")
        return waveform[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN], sampling_rate

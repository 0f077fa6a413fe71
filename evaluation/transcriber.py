"""Transcripts by Whisper."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..foundation.quiet import log_level

POSITIONS_PER_SECOND, SAMPLES_PER_POSITION = 50, 320
SILENCE_AFTER = 7.0
"""Seconds of silence after the longest clip. With 2 s, Whisper base fell into repetition on every tenth question; 7 s
is within 2 points of WER of the full window at a fifth of its time."""

WHOLE_WINDOW = 30.0


class Transcriber:
    """Whisper, with an encoder window cut to the clips instead of 30 s."""

    def __init__(self, path: str):
        """Loads the model.

        Args:
            path: Folder or hub id.
        """
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        with log_level("transformers", logging.ERROR):
            self._processor = WhisperProcessor.from_pretrained(path)
            self._model: Any = WhisperForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
        self._model.eval().to(self._device)
        self._positions = self._model.model.encoder.embed_positions.weight.detach().clone()

    def _cut_window(self, seconds: float) -> int:
        """Shortens the encoder's positions and returns the window in samples."""
        wanted = min(WHOLE_WINDOW, seconds + SILENCE_AFTER)
        positions = min(len(self._positions), int(np.ceil(wanted * POSITIONS_PER_SECOND)))
        encoder = self._model.model.encoder
        encoder.embed_positions = self._torch.nn.Embedding.from_pretrained(self._positions[:positions])
        encoder.max_source_positions = encoder.config.max_source_positions = positions
        return positions * SAMPLES_PER_POSITION

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Transcribes 16 kHz waveforms of shape (samples,); a clip is cut after 30 s."""
        window = self._cut_window(max(map(len, waveforms)) / 16000)
        features = self._processor.feature_extractor(
            list(waveforms),
            sampling_rate=16000,
            return_tensors="pt",
            padding="max_length",
            max_length=window,
            truncation=True,
        ).input_features.to(self._device)
        language = {"language": "en", "task": "transcribe"} if self._model.generation_config.is_multilingual else {}
        with self._torch.inference_mode(), log_level("transformers", logging.ERROR):
            tokens = self._model.generate(features, max_new_tokens=64, do_sample=False, num_beams=1, **language)
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]

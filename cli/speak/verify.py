"""Checking clips by ear: Whisper writes down what it hears, and the word error rate says how far off that is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

POSITIONS_PER_SECOND, SAMPLES_PER_POSITION = 50, 320
SILENCE_AFTER = 7.0
"""Seconds of silence after the longest clip. With 2 s Whisper base repeated every tenth question again and again; 7 s
is within 2 points of WER of the full window at a fifth of its time."""

WHOLE_WINDOW = 30.0


def join_letters(text: str) -> str:
    """Single letters in a row as one word: "f e" and "fe" are the same spelling."""
    return re.sub(r"\b(\w)\s+(?=\w\b)", r"\1", text)


class WordErrorRate:
    """Word error rate after Whisper's own normalisation of English (case, numbers, contractions)."""

    @cached_property
    def _normalise(self) -> Callable[[str], str]:
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        return EnglishTextNormalizer({})

    def __call__(self, spoken: str, heard: str) -> float:
        """Errors per word that was said.

        Args:
            spoken: The text that the voice was given.
            heard: The transcript.

        Returns:
            Insertions, deletions and substitutions over the words of ``spoken``, rounded to three digits.
        """
        import jiwer

        reference = join_letters(self._normalise(spoken))
        hypothesis = join_letters(self._normalise(heard))
        if not reference:
            return float(bool(hypothesis))
        return round(float(jiwer.wer(reference, hypothesis)), 3)


class Transcriber:
    """Whisper, with an encoder window cut to the clips instead of 30 s."""

    def __init__(self, source: str):
        """Load the model.

        Args:
            source: Folder, hub id or ``asset:NAME``.
        """
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        from transformers.utils import logging

        from ..assets.location import locate

        path = str(locate(source.removeprefix("asset:"))) if source.startswith("asset:") else source
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor = WhisperProcessor.from_pretrained(path)
        self._model: Any = WhisperForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
        self._model.eval().to(self._device)
        self._positions = self._model.model.encoder.embed_positions.weight.detach().clone()

    def _cut_window(self, seconds: float) -> int:
        """Shorten the encoder's positions and return the window in samples."""
        wanted = min(WHOLE_WINDOW, seconds + SILENCE_AFTER)
        positions = min(len(self._positions), int(np.ceil(wanted * POSITIONS_PER_SECOND)))
        encoder = self._model.model.encoder
        encoder.embed_positions = self._torch.nn.Embedding.from_pretrained(self._positions[:positions])
        encoder.max_source_positions = encoder.config.max_source_positions = positions
        return positions * SAMPLES_PER_POSITION

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Transcripts of 16 kHz waveforms of shape (samples,); a clip is cut after 30 s."""
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
        with self._torch.inference_mode():
            tokens = self._model.generate(features, max_new_tokens=64, **language)
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


class TranscriptStore:
    """Transcripts by clip, kept beside the clips so that a second run does not listen again."""

    def __init__(self, path: Path):
        """Read what is there; a line that was cut off in the middle is dropped."""
        self._path = path
        self.transcripts: dict[str, str] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row: Mapping[str, Any] = json.loads(line)
                    self.transcripts[row["clip"]] = row["transcript"]
                except (json.JSONDecodeError, KeyError):
                    continue

    def add(self, transcripts: Mapping[str, str]) -> None:
        """Remember transcripts, on disk too."""
        self.transcripts.update(transcripts)
        with self._path.open("a", encoding="utf-8") as file:
            for clip, text in transcripts.items():
                file.write(json.dumps({"clip": clip, "transcript": text}, ensure_ascii=False) + "\n")


def transcribe_clips(
    clips: Sequence[str], folder: Path, transcriber: Transcriber, store: TranscriptStore, advance: Callable[[int], None]
) -> None:
    """Listen to all clips that the store does not know, those of like length together.

    Args:
        clips: Paths relative to ``folder``.
        folder: Output folder.
        transcriber: Who listens.
        store: Where the transcripts go.
        advance: Called with the number of clips that were finished.
    """
    import soundfile

    unknown = [clip for clip in clips if clip not in store.transcripts]
    advance(len(clips) - len(unknown))
    unknown.sort(key=lambda clip: (folder / clip).stat().st_size)
    for start in range(0, len(unknown), 8):
        batch = unknown[start : start + 8]
        waveforms = [soundfile.read(folder / clip, dtype="float32")[0] for clip in batch]
        store.add(dict(zip(batch, transcriber(waveforms), strict=True)))
        advance(len(batch))

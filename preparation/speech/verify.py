"""Checks clips with Whisper: it transcribes them, and the word error rate measures how far off the transcript is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...evaluation.transcriber import Transcriber
from ...foundation.assets import resolve


def join_letters(text: str) -> str:
    """Joins single letters in a row: "f e" and "fe" are the same spelling."""
    return re.sub(r"\b(\w)\s+(?=\w\b)", r"\1", text)


class WordErrorRate:
    """Word error rate after Whisper's own normalisation of English (case, numbers, contractions)."""

    @cached_property
    def _normalise(self) -> Callable[[str], str]:
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        return EnglishTextNormalizer({})

    def __call__(self, spoken: str, heard: str) -> float:
        """Returns the errors per word that was said.

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


def load_transcriber(source: str) -> Transcriber:
    """Loads Whisper from a folder, a hub id or ``asset:NAME``."""
    return Transcriber(resolve(source))


class TranscriptStore:
    """Transcripts by clip, kept beside the clips so that a second run does not listen again."""

    def __init__(self, path: Path):
        """Reads the existing records; a truncated line is dropped."""
        self._path = path
        self.transcripts: dict[str, str] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    row: Mapping[str, Any] = json.loads(line)
                    self.transcripts[row["clip"]] = row["transcript"]
                except (json.JSONDecodeError, KeyError):
                    continue

    def add(self, transcripts: Mapping[str, str]) -> None:
        """Remembers transcripts, on disk too."""
        self.transcripts.update(transcripts)
        with self._path.open("a", encoding="utf-8") as file:
            for clip, text in transcripts.items():
                file.write(json.dumps({"clip": clip, "transcript": text}, ensure_ascii=False) + "\n")


def transcribe_clips(
    clips: Sequence[str], folder: Path, transcriber: Transcriber, store: TranscriptStore, advance: Callable[[int], None]
) -> None:
    """Transcribes all clips that the store does not know, those of similar length together.

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

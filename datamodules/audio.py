"""Clips to waveforms: soundfile decodes (wav, flac, ogg, opus, mp3), torchaudio resamples."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from .bad_examples import BadExampleError
from .example import Audio, AudioArray, Example

MAX_SECONDS = 30.0
"""Default limit of a clip: what Whisper's position table holds."""


def read_waveform(example: Example, sampling_rate: int, max_seconds: float = MAX_SECONDS) -> Tensor:
    """Decode the example's clip: mono (mean of the channels), resampled, float32 (samples,).

    Raises:
        BadExampleError: If the clip is missing, corrupt, empty or longer than ``max_seconds``; it names the manifest's
            line.
    """
    waveform, rate = _decode(example)
    check_seconds(example, len(waveform) / rate, max_seconds)
    mono = waveform.mean(dim=1) if waveform.dim() == 2 else waveform
    if mono.numel() == 0 or not torch.isfinite(mono).all():
        raise _corrupt(example, "it has no samples" if mono.numel() == 0 else "some samples are not finite")
    return mono if rate == sampling_rate else _resampler(rate, sampling_rate)(mono)


def clip_seconds(example: Example) -> float:
    """Length of the example's clip in seconds, from its metadata or else from the file's header.

    Raises:
        BadExampleError: If the header cannot be read or ``seconds`` is no positive number.
    """
    given = example.metadata.get("seconds")
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
            detail = f'"seconds" is {given!r}; allowed: a positive number'
            raise BadExampleError("wrong type", example.location, detail)
        return float(given)
    if isinstance(example.audio, AudioArray):
        return len(example.audio.waveform) / example.audio.sampling_rate
    try:
        return float(soundfile.info(_file(example.audio)).duration)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise _corrupt(example, str(error)) from None


def clip_bytes(example: Example) -> bytes:
    """Content of the example's clip, as the key of a cache.

    Raises:
        BadExampleError: If the file cannot be read.
    """
    if isinstance(example.audio, AudioArray):
        rate = str(example.audio.sampling_rate).encode()
        return rate + example.audio.waveform.contiguous().numpy().tobytes()
    try:
        file = _file(example.audio)
        return file.getvalue() if isinstance(file, io.BytesIO) else Path(file).read_bytes()
    except OSError as error:
        raise _corrupt(example, str(error)) from None


def check_seconds(example: Example, seconds: float, max_seconds: float) -> None:
    """Raise BadExampleError if the clip is longer than ``max_seconds``."""
    if seconds > max_seconds:
        detail = f"the clip has {seconds:.1f} s; allowed: at most max_seconds = {max_seconds:g} s"
        raise BadExampleError("too long", example.location, detail)


def _decode(example: Example) -> tuple[Tensor, int]:
    if isinstance(example.audio, AudioArray):
        return example.audio.waveform.float(), example.audio.sampling_rate
    try:
        samples, rate = soundfile.read(_file(example.audio), dtype="float32", always_2d=False)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise _corrupt(example, str(error)) from None
    return torch.from_numpy(samples), rate


def _file(audio: Audio | None) -> str | io.BytesIO:
    """Something that soundfile opens."""
    if audio is None:
        raise ValueError("the example has no clip")
    stored = audio if isinstance(audio, Path | AudioArray) else audio.read()
    return io.BytesIO(stored) if isinstance(stored, bytes) else os.fspath(stored)  # type: ignore[arg-type]


def _corrupt(example: Example, cause: str) -> BadExampleError:
    what = example.audio if isinstance(example.audio, Path) else "the clip"
    detail = f"{what} cannot be decoded ({cause.rstrip('.')}); allowed: what soundfile reads (wav, flac, ogg, mp3)"
    return BadExampleError("corrupt clip", example.location, detail)


@lru_cache(maxsize=16)
def _resampler(source: int, target: int) -> torch.nn.Module:
    """The resampling filter for a pair of rates, built once per process."""
    from torchaudio.transforms import Resample

    return Resample(source, target)

"""Clips to waveforms: decoded, mixed to mono, resampled."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from ...foundation.errors import MachineError
from .bad_examples import BadExampleError
from .example import Audio, AudioArray, Example
from .resampling import resample
from .sound_files import read_sound, sound_seconds

MAX_SECONDS = 30.0
"""Default limit of a clip: what Whisper's position table holds."""

_NO_LENGTH = 1e9
"""Seconds that no clip has."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the system says when it opens no file at all."""

_LOUDEST = 100.0
"""Peak (full scale is 1) from which on samples were not scaled: floats that hold 16-bit numbers reach 32,767."""

_FULL_SCALE = {torch.uint8: (128, 128.0), torch.int16: (0, 2.0**15), torch.int32: (0, 2.0**31)}
"""Zero and full scale of PCM samples."""


def read_waveform(example: Example, sampling_rate: int, max_seconds: float = MAX_SECONDS) -> Tensor:
    """Decodes the example's clip: mono (mean of the channels), resampled, float32 (samples,).

    Raises:
        BadExampleError: If the clip is missing, corrupt, empty or longer than ``max_seconds``; it names the manifest's
            line.
        MachineError: If no file at all can be opened.
    """
    waveform, rate, seconds = _decode(example, max_seconds)
    check_seconds(example, seconds, max_seconds)
    mono = waveform.mean(dim=1) if waveform.dim() == 2 else waveform
    if mono.numel() == 0:
        raise _corrupt(example, "it has no samples")
    if not torch.isfinite(mono).all():
        raise _corrupt(example, "some samples are not finite")
    if (peak := float(mono.abs().max())) > _LOUDEST:
        raise _corrupt(example, f"samples reach {peak:.4g}, so they are not scaled to [-1, 1]")
    return resample(mono, rate, sampling_rate)


def clip_seconds(example: Example) -> float:
    """Returns the length of the example's clip in seconds, from its metadata or else from the file's header.

    Raises:
        BadExampleError: If the header cannot be read or ``seconds`` is not a positive number.
    """
    given = example.metadata.get("seconds")
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < _NO_LENGTH:
            detail = f'"seconds" is {given!r}; allowed: a positive number'
            raise BadExampleError("wrong type", example.location, detail)
        return float(given)
    if isinstance(example.audio, AudioArray):
        return len(_in_memory(example, example.audio)) / example.audio.sampling_rate
    try:
        return sound_seconds(_file(example.audio))
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise _fault(example, error) from None


def clip_bytes(example: Example) -> bytes:
    """Returns the content of the example's clip, as the key of a cache.

    Raises:
        BadExampleError: If the file cannot be read.
    """
    if isinstance(example.audio, AudioArray):
        samples = example.audio.waveform
        kind = f"{example.audio.sampling_rate}:{tuple(samples.shape)}:{samples.dtype}:".encode()
        return kind + samples.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    try:
        file = _file(example.audio)
        return file.getvalue() if isinstance(file, io.BytesIO) else Path(file).read_bytes()
    except OSError as error:
        raise _fault(example, error) from None


def check_seconds(example: Example, seconds: float, max_seconds: float) -> None:
    """Raises BadExampleError if the clip is longer than ``max_seconds``."""
    if seconds > max_seconds:
        detail = f"the clip has {seconds:.1f} s; allowed: at most max_seconds = {max_seconds:g} s"
        raise BadExampleError("too long", example.location, detail)


def _decode(example: Example, max_seconds: float) -> tuple[Tensor, int, float]:
    """Decodes samples, (samples,) or (samples, channels); gives them, the rate, and the seconds of the whole clip."""
    if isinstance(example.audio, AudioArray):
        samples, rate = _in_memory(example, example.audio), example.audio.sampling_rate
        return samples, rate, len(samples) / rate
    try:
        sound = read_sound(_file(example.audio), max_seconds)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise _fault(example, error) from None
    return torch.from_numpy(sound.samples), sound.rate, sound.seconds


def _in_memory(example: Example, audio: AudioArray) -> Tensor:
    """Returns an array's samples as float32 in [-1, 1].

    Raises:
        BadExampleError: If it is of another shape or type than a clip has, or has no rate.
    """
    samples = audio.waveform
    if audio.sampling_rate < 1:
        raise _corrupt(example, f"its sampling rate is {audio.sampling_rate}")
    if samples.dim() not in (1, 2) or (samples.dim() == 2 and samples.shape[1] > max(samples.shape[0], 1)):
        raise _corrupt(example, f"its shape is {tuple(samples.shape)}, not (samples,) or (samples, channels)")
    if samples.dtype in _FULL_SCALE:
        offset, scale = _FULL_SCALE[samples.dtype]
        return (samples.double().sub(offset) / scale).float()
    if not samples.is_floating_point():
        raise _corrupt(example, f"its samples are {samples.dtype}, whose full scale is unknown")
    return samples.float()


def _file(audio: Audio | None) -> str | io.BytesIO:
    """Returns something that soundfile opens."""
    if audio is None:
        raise ValueError("the example has no clip")
    stored = audio if isinstance(audio, Path | AudioArray) else audio.read()
    return io.BytesIO(stored) if isinstance(stored, bytes) else os.fspath(stored)  # type: ignore[arg-type]


def _fault(example: Example, error: Exception) -> BadExampleError | MachineError:
    """Returns what is wrong: usually the clip, but no clip is bad because the machine can open no more files."""
    number = getattr(error, "errno", None)
    if isinstance(error, soundfile.LibsndfileError):  # it says "System error" of whatever fails
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as own:
            number = own.errno
    if number in _EXHAUSTED:
        return MachineError(f"{example.location}: {os.strerror(number)}; {example.audio} cannot be opened")
    return _corrupt(example, str(error))


def _corrupt(example: Example, cause: str) -> BadExampleError:
    what = example.audio if isinstance(example.audio, Path) else "the clip"
    reason = cause.rstrip(".: ") or "its content is damaged"
    detail = f"{what} cannot be decoded ({reason}); allowed: what soundfile reads (wav, flac, ogg, mp3)"
    return BadExampleError("corrupt clip", example.location, detail)

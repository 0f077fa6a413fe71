"""Sound files whose header states a true, an unknown or a false length, read by soundfile in bounded memory."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

_UNKNOWN = 2**40
"""Frames from which on a header makes no sense (70 years at 500 Hz): FLAC's "unknown" comes out as 2**63 - 1."""
_LONGEST = 1e9
"""Seconds that count as no limit."""
_BLOCK = 5000
"""Frames read at a time from a file of unknown length; no multiple of FLAC's own blocks, so that a block that was cut
short is not taken for the end."""
_TAGS = 8192
"""Bytes that may stand behind the sound of an MP3: titles, and what a decoder reads ahead."""
_END_OF_STREAM = 39
"""What libsndfile says at the end of a FLAC stream of unknown length: it cannot seek back to a last sample."""


@dataclass(frozen=True)
class Sound:
    """The decoded beginning of a sound file.

    Attributes:
        samples: (frames, channels), float32.
        rate: In Hz.
        seconds: Length of the whole file; what was counted where the header does not tell.
    """

    samples: NDArray[np.float32]
    rate: int
    seconds: float


def read_sound(file: str | io.BytesIO, max_seconds: float) -> Sound:
    """Decodes a file, but stops once it is clear that it is too long.

    Args:
        file: What soundfile opens.
        max_seconds: Reading stops behind it.

    Raises:
        soundfile.LibsndfileError: If the file cannot be decoded.
        ValueError: If decoding ends long before the file does.
    """
    if isinstance(file, str) and file.lower().endswith(".mp3"):
        with open(file, "rb") as stream:
            file = io.BytesIO(stream.read())  # whose position tells how much of it was decoded
    with _open(file) as sound:
        most = int(min(max_seconds, _LONGEST) * sound.samplerate) + 1
        if sound.frames < _UNKNOWN:
            samples = sound.read(most, dtype="float32", always_2d=True)
            whole = max(sound.frames, len(samples)) if len(samples) == most else len(samples)
            if sound.format == "MP3" and len(samples) < most:
                _check_end(file)
        else:
            blocks, whole = [np.zeros((0, sound.channels), np.float32)], 0
            while whole < most and len(block := _block(sound)):
                blocks.append(block)
                whole += len(block)
            samples = np.concatenate(blocks)
        return Sound(samples, sound.samplerate, whole / sound.samplerate)


def sound_seconds(file: str | io.BytesIO) -> float:
    """Returns the length of a file by its header, or by counting where the header does not tell.

    Raises:
        soundfile.LibsndfileError: If the file cannot be read.
    """
    with _open(file) as sound:
        frames = sound.frames
        if frames >= _UNKNOWN:
            frames = 0
            while count := len(_block(sound)):
                frames += count
        return float(frames / sound.samplerate)


def _block(sound: soundfile.SoundFile) -> NDArray[np.float32]:
    """Reads the next frames of a stream of unknown length; none at its end."""
    block = np.full((_BLOCK, sound.channels), np.nan, np.float32)
    try:
        return sound.read(out=block)
    except soundfile.LibsndfileError as error:
        if error.code != _END_OF_STREAM:
            raise
        return block[: int(np.isfinite(block[:, 0]).sum())]  # what was decoded before the end


def _check_end(file: str | io.BytesIO) -> None:
    """Refuses an MP3 whose end was not read: without an index, one of variable bit rate may seem too short."""
    if isinstance(file, io.BytesIO):
        size = file.getbuffer().nbytes
        if size - file.tell() > size // 10 + _TAGS:
            raise ValueError("an MP3 of variable bit rate whose header does not state its length; encode it again")


def _open(file: str | io.BytesIO) -> soundfile.SoundFile:
    """Opens a file; a WAV whose recorder never came to write its length (0) is read to its end."""
    sound = soundfile.SoundFile(file)
    if sound.frames or sound.format not in ("WAV", "WAVEX"):
        return sound
    sound.close()
    if isinstance(file, str):
        with open(file, "rb") as stream:
            content = stream.read()
    else:
        content = file.getvalue()
    return soundfile.SoundFile(io.BytesIO(content.replace(b"data\0\0\0\0", b"data\xff\xff\xff\xff", 1)))

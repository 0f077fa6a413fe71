"""Files whose header does not tell their length, or tells a false one."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from textkeep.datamodules.sources.audio import clip_seconds, read_waveform
from textkeep.datamodules.sources.bad_examples import BadExampleError
from textkeep.datamodules.sources.example import Example

RATE = 16000


def noise(frames: int, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((frames, channels))


def encoded(form: str, frames: int, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(frames, channels), RATE, format=form)
    return file.getvalue()


def flac_of_length(content: bytes, frames: int) -> bytes:
    """The 36-bit number of samples in STREAMINFO; 0 means unknown (FLAC's specification, RFC 9639, 8.2)."""
    return content[:21] + bytes([content[21] & 0xF0]) + struct.pack(">I", frames) + content[26:]


def wav_of_length(content: bytes, size: int) -> bytes:
    """The sizes of RIFF and data chunk, as a recorder or ffmpeg leaves them that cannot go back to write them."""
    at = content.index(b"data") + 4
    return content[:4] + struct.pack("<I", size) + content[8:at] + struct.pack("<I", size) + content[at + 4 :]


def example(path: Path) -> Example:
    return Example("a", "What?", ("x",), "x", path, location="m.jsonl:7")


@pytest.mark.parametrize("frames", [1, 4096, 5000, 8192, 16000, 40000])
@pytest.mark.parametrize("channels", [1, 2])
def test_flac_of_unknown_length_is_read_whole(tmp_path: Path, frames: int, channels: int) -> None:
    path, whole = tmp_path / "a.flac", tmp_path / "whole.flac"
    whole.write_bytes(encoded("FLAC", frames, channels))
    path.write_bytes(flac_of_length(whole.read_bytes(), 0))
    assert clip_seconds(example(path)) == frames / RATE
    assert read_waveform(example(path), RATE).equal(read_waveform(example(whole), RATE))


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFF00, 0xFFFFFFFF])
def test_wav_from_a_pipe_is_read_whole(tmp_path: Path, size: int) -> None:
    path, whole = tmp_path / "a.wav", tmp_path / "whole.wav"
    whole.write_bytes(encoded("WAV", 12345))
    path.write_bytes(wav_of_length(whole.read_bytes(), size))
    assert clip_seconds(example(path)) == 12345 / RATE
    assert read_waveform(example(path), RATE).equal(read_waveform(example(whole), RATE))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(flac_of_length(encoded("FLAC", 40000), 0)[:30000], id="unknown-and-cut"),
        pytest.param(encoded("FLAC", 40000)[:30000], id="flac-cut"),
        pytest.param(flac_of_length(encoded("FLAC", 40000), 40001), id="flac-of-too-many"),
        pytest.param(encoded("OGG", 16000)[:4000], id="ogg-cut"),
        pytest.param(encoded("WAV", 0), id="wav-of-nothing"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.any"
    path.write_bytes(content)
    with pytest.raises(BadExampleError, match=r"m\.jsonl:7: .*a\.any cannot be decoded \(.+\); allowed: what"):
        read_waveform(example(path), RATE)


def test_no_more_is_read_than_shows_that_a_clip_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = tmp_path / "known.flac", tmp_path / "unknown.flac"
    known.write_bytes(encoded("FLAC", 60 * RATE))
    unknown.write_bytes(flac_of_length(known.read_bytes(), 0))
    decoded = []
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, *args: object, **options: object) -> np.ndarray:
        decoded.append(len(out := read(self, *args, **options)))
        return out

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    with pytest.raises(BadExampleError, match=r"the clip has 60\.0 s; allowed: at most max_seconds = 2 s"):
        read_waveform(example(known), RATE, max_seconds=2)
    with pytest.raises(BadExampleError, match=r"the clip has 2\.\d s; allowed: at most max_seconds = 2 s"):
        read_waveform(example(unknown), RATE, max_seconds=2)
    assert sum(decoded) < 5 * RATE
    assert len(read_waveform(example(unknown), RATE, max_seconds=float("inf"))) == 60 * RATE


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_that_would_be_cut_is_named(tmp_path: Path, loud_first: bool) -> None:
    """Of variable bit rate, and without the frame that tells how long it is: the length is guessed from the start."""
    parts = [0.5 * noise(4 * RATE), np.zeros((16 * RATE, 1))]
    file = io.BytesIO()
    sound = np.concatenate(parts if loud_first else parts[::-1])
    soundfile.write(file, sound, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    whole, path = tmp_path / "whole.mp3", tmp_path / "a.mp3"
    whole.write_bytes(content := file.getvalue())
    starts = [at for at in range(1, 2000) if content[at] == 0xFF and content[at + 1] & 0xE0 == 0xE0]
    path.write_bytes(content[starts[0] :])
    assert len(read_waveform(example(whole), RATE)) == 20 * RATE
    if loud_first:
        with pytest.raises(BadExampleError, match="an MP3 of variable bit rate whose header does not state its length"):
            read_waveform(example(path), RATE)
    else:
        assert len(read_waveform(example(path), RATE, max_seconds=60)) == pytest.approx(20 * RATE, abs=4000)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
def test_a_usual_mp3_is_read_to_its_end(tmp_path: Path, seconds: float, mode: str) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise(int(seconds * RATE)), RATE, bitrate_mode=mode, compression_level=0.3)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert len(read_waveform(example(path), RATE)) == int(seconds * RATE)

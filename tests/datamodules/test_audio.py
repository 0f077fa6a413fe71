from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from textkeep.datamodules.batches.augment import Augment
from textkeep.datamodules.sources.audio import clip_bytes, clip_seconds, read_waveform
from textkeep.datamodules.sources.bad_examples import BadExampleError
from textkeep.datamodules.sources.example import Audio, AudioArray, Example

from .conftest import tone


def example(audio: Audio | None, **metadata: object) -> Example:
    return Example("a", "What?", ("x",), "x", audio, location="m.jsonl:7", metadata=metadata)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_decodes_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(1.0), 16000)
    waveform = read_waveform(example(path), 16000)
    assert waveform.dtype == torch.float32
    assert abs(len(waveform) - 16000) < 1700  # mp3 pads to whole frames
    assert float(waveform.abs().max()) == pytest.approx(0.3, abs=0.05)


def test_mixes_to_mono_and_resamples_like_scipy(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left, right = tone(1.0, 48000, 300), tone(1.0, 48000, 500)
    soundfile.write(path, np.stack([left, right], axis=1), 48000, subtype="FLOAT")
    waveform = read_waveform(example(path), 16000)
    expected = resample_poly((left + right) / 2, 1, 3)
    assert waveform.shape == (16000,)
    assert np.abs(waveform.numpy() - expected)[200:-200].max() < 2e-3


def test_an_array_in_memory_needs_no_file() -> None:
    array = AudioArray(torch.from_numpy(tone(0.5, 8000)), 8000)
    assert read_waveform(example(array), 16000).shape == (8000,)
    assert clip_seconds(example(array)) == 0.5
    assert clip_bytes(example(array)) != clip_bytes(example(AudioArray(array.waveform, 16000)))


def test_corrupt_and_unfit_clips_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ogg"
    broken.write_bytes(b"OggS but not really")
    with pytest.raises(BadExampleError, match=r"m\.jsonl:7: .*broken\.ogg cannot be decoded .*allowed: what soundfile"):
        read_waveform(example(broken), 16000)
    with pytest.raises(BadExampleError, match="cannot be decoded"):
        clip_seconds(example(broken))
    with pytest.raises(BadExampleError, match="cannot be decoded"):
        clip_bytes(example(tmp_path / "gone.wav"))
    with pytest.raises(BadExampleError, match=r"2\.0 s; allowed: at most max_seconds = 1 s"):
        read_waveform(example(AudioArray(torch.zeros(32000), 16000)), 16000, max_seconds=1)
    with pytest.raises(BadExampleError, match="it has no samples"):
        read_waveform(example(AudioArray(torch.zeros(0), 16000)), 16000)
    with pytest.raises(BadExampleError, match="not finite"):
        read_waveform(example(AudioArray(torch.full((10,), torch.nan), 16000)), 16000)
    for seconds in (-1, 0, float("nan"), float("inf"), 10**400, "2", True):
        with pytest.raises(BadExampleError, match=r'"seconds" is .*; allowed: a positive number'):
            clip_seconds(example(broken, seconds=seconds))


@pytest.mark.parametrize(
    ("waveform", "rate", "cause"),
    [
        (torch.zeros(2, 8000), 16000, r"its shape is \(2, 8000\), not \(samples,\) or \(samples, channels\)"),
        (torch.zeros(1, 1, 8000), 16000, "its shape is"),
        (torch.zeros(8000, dtype=torch.int64), 16000, r"its samples are torch\.int64, whose full scale is unknown"),
        (torch.zeros(8000), 0, "its sampling rate is 0"),
        (torch.full((8000,), 9000.0), 16000, r"samples reach 9000, so they are not scaled to \[-1, 1\]"),
        (torch.full((8000,), 1e300, dtype=torch.float64), 16000, "not finite"),
    ],
)
def test_what_is_no_waveform_is_never_taken_for_one(waveform: torch.Tensor, rate: int, cause: str) -> None:
    with pytest.raises(BadExampleError, match=cause):
        read_waveform(example(AudioArray(waveform, rate)), 16000)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float16, torch.float64])
def test_arrays_of_every_type_hold_the_same_sound(dtype: torch.dtype) -> None:
    sound = torch.from_numpy(tone(0.5))
    zero, scale = {torch.uint8: (128, 127), torch.int16: (0, 2**15), torch.int32: (0, 2**31)}.get(dtype, (0, 1))
    given = (sound.double() * scale + zero).round() if scale > 1 else sound
    heard = read_waveform(example(AudioArray(given.to(dtype), 16000)), 16000)
    assert heard.dtype == torch.float32
    assert float((heard - sound).abs().max()) < (0.01 if dtype == torch.uint8 else 1e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_files_of_every_depth_hold_the_same_sound(tmp_path: Path, subtype: str, channels: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(0.5)] * channels, axis=1), 16000, subtype=subtype)
    heard = read_waveform(example(path), 16000)[:8000]
    assert np.abs(heard.numpy() - tone(0.5)).max() < 0.03


def test_seconds_come_from_the_manifest_or_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.5, 22050), 22050)
    assert clip_seconds(example(path, seconds=9)) == 9.0
    assert clip_seconds(example(path)) == pytest.approx(1.5, abs=1e-3)


def test_augmentation_depends_on_seed_epoch_and_id_alone() -> None:
    augment = Augment([0.9, 1.0, 1.1], (5.0, 20.0), seed=3)
    clip = torch.from_numpy(tone(1.0))
    torch.manual_seed(0)
    first = augment(clip, 16000, "a", 0)
    torch.manual_seed(1)
    assert torch.equal(first, Augment([0.9, 1.0, 1.1], (5.0, 20.0), seed=3)(clip, 16000, "a", 0))
    assert not torch.equal(first[:9000], augment(clip, 16000, "a", 1)[:9000])
    assert not torch.equal(first[:9000], augment(clip, 16000, "b", 0)[:9000])
    assert augment.longest == pytest.approx(1 / 0.9)


def test_speed_changes_the_length_and_noise_has_the_ratio() -> None:
    clip = torch.from_numpy(tone(1.0))
    assert abs(len(Augment([1.25])(clip, 16000, "a", 0)) - 12800) <= 2
    noise = Augment(noise_snr_db=(10.0, 10.0))(clip, 16000, "a", 0) - clip
    ratio = 10 * torch.log10(clip.pow(2).sum() / noise.pow(2).sum())
    assert float(ratio) == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("factor", [0.93333, 1.0001, 1.13])
def test_an_odd_speed_costs_no_more_than_a_round_one(factor: float) -> None:
    """A filter bank for 16001 : 16000 would hold 256 million weights."""
    clip = torch.from_numpy(tone(1.0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changed = Augment([factor])(clip, 16000, "a", 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    assert len(changed) == pytest.approx(16000 / factor, abs=2)
    expected = tone(1.1, frequency=440 * round(16000 * factor) / 16000)[: len(changed)]
    assert np.abs(changed.numpy() - expected)[200:-200].max() < 2e-3


def test_augmentation_refuses_what_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match=r"speed_perturb: \[0\.1\] \(allowed: a list of factors from 0\.5 to 2\)"):
        Augment([0.1])
    with pytest.raises(ValueError, match=r"noise_snr_db: .*lowest, highest"):
        Augment(noise_snr_db=(20.0, 5.0))

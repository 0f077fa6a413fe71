"""Resampling: any pair of rates, in little memory, against a sound that is known at every rate and against scipy."""

from __future__ import annotations

import resource
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from torchaudio.transforms import Resample

from textkeep.datamodules.sources.resampling import resample

TARGET = 16000


def speech_like(rate: int, seconds: float = 1.0) -> np.ndarray:
    """Tones from 100 Hz to 3 kHz, at any rate."""
    time = np.arange(round(seconds * rate)) / rate
    return np.asarray(sum(0.1 * np.sin(2 * np.pi * f * time + f) for f in (100, 440, 997, 2003, 3000)), np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 37800, 44100, 48000, 96000])
def test_usual_rates_are_torchaudios_to_the_bit(rate: int) -> None:
    sound = torch.from_numpy(speech_like(rate))
    assert torch.equal(resample(sound, rate, TARGET), Resample(rate, TARGET)(sound))
    assert torch.equal(resample(sound, TARGET, TARGET), sound)


@pytest.mark.parametrize("rate", [7919, 8001, 16001, 15999, 22254, 44099, 44101, 47999, 191_999])
def test_odd_rates_hold_the_same_sound_in_little_memory(rate: int) -> None:
    sound = torch.from_numpy(speech_like(rate))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard = resample(sound, rate, TARGET)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; a bank takes 1 to 14 GB
    assert heard.shape == (TARGET,)
    assert heard.dtype == torch.float32
    error = np.abs(heard.numpy() - speech_like(TARGET))[300:-300].max()
    known = torch.from_numpy(speech_like(8000 if rate < TARGET else 48000))  # a round rate: torchaudio's own filter
    usual = np.abs(Resample(8000 if rate < TARGET else 48000, TARGET)(known).numpy() - speech_like(TARGET))
    assert error < max(1.5 * usual[300:-300].max(), 1e-3)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_what_no_bank_holds_is_the_banks_filter(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = torch.from_numpy(speech_like(rate))
    bank = resample(sound, rate, TARGET)
    monkeypatch.setattr("textkeep.datamodules.sources.resampling._LARGEST_KERNEL", 0)
    # torchaudio rounds the phases of its bank to float32.
    torch.testing.assert_close(resample(sound, rate, TARGET), bank, rtol=0, atol=2e-5)


@pytest.mark.parametrize("rate", [22254, 44099])
def test_a_clip_of_an_odd_rate_is_scipys(rate: int) -> None:
    """White noise, in the band that both filters pass; scipy is given the nearest small fraction."""
    noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32) * 0.1
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(rate, 1 / rate) > 5000] = 0
    noise = np.fft.irfft(spectrum, rate).astype(np.float32)
    fraction = Fraction(TARGET, rate)
    expected = resample_poly(noise.astype(np.float64), fraction.numerator, fraction.denominator)
    heard = resample(torch.from_numpy(noise), rate, TARGET).numpy()
    middle = slice(500, -500)
    assert np.sqrt(np.mean((heard - expected)[middle] ** 2)) < 2e-3 * np.sqrt(np.mean(expected[middle] ** 2))


@pytest.mark.parametrize("length", [1, 2, 17, 1000])
@pytest.mark.parametrize("rate", [44099, 7919])
def test_any_length_gives_its_share_of_samples(length: int, rate: int) -> None:
    heard = resample(torch.full((length,), 0.5), rate, TARGET)
    assert len(heard) == -(-length * TARGET // rate)
    assert torch.isfinite(heard).all()

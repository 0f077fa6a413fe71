"""Cheap changes of training clips: speed and white noise."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..sources.resampling import resample


class Augment:
    """Changes a clip as a function of (seed, epoch, example id) alone, whatever the worker.

    Args:
        speed: Factors, one of which is drawn for each clip (1.1 = faster and higher); None leaves the speed.
        noise_snr_db: Range of the signal-to-noise ratio of added white noise in dB, drawn uniformly; None adds none.
        seed: Seed of the draws.

    Raises:
        ValueError: If a factor is outside [0.5, 2], or the range is reversed.
    """

    def __init__(
        self, speed: list[float] | None = None, noise_snr_db: tuple[float, float] | None = None, seed: int = 0
    ) -> None:
        if speed is not None and (not speed or not all(0.5 <= factor <= 2 for factor in speed)):
            raise ValueError(f"speed_perturb: {speed} (allowed: a list of factors from 0.5 to 2)")
        if noise_snr_db is not None and noise_snr_db[0] > noise_snr_db[1]:
            raise ValueError(f"noise_snr_db: {noise_snr_db} (allowed: [lowest, highest] in dB)")
        self.speed = speed
        self.noise_snr_db = noise_snr_db
        self.seed = seed

    @property
    def longest(self) -> float:
        """Factor by which a clip may grow."""
        return max(1.0, 1.0 / min(self.speed)) if self.speed else 1.0

    def __call__(self, waveform: Tensor, sampling_rate: int, identity: str, epoch: int) -> Tensor:
        """Returns the changed clip, (samples,) -> (samples',)."""
        digest = hashlib.sha256(f"{self.seed}:{epoch}:{identity}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if self.speed:
            factor = self.speed[int(torch.randint(len(self.speed), (1,), generator=generator))]
            # Played at a rate `factor` times as high, then brought back to the rate of the others.
            waveform = resample(waveform, round(factor * sampling_rate), sampling_rate)
        if self.noise_snr_db is not None:
            from torchaudio.functional import add_noise

            low, high = self.noise_snr_db
            ratio = low + (high - low) * torch.rand(1, generator=generator)
            noise = torch.randn(waveform.shape, generator=generator)
            waveform = add_noise(waveform[None], noise[None], ratio)[0]
        return waveform

"""Waveforms to another sampling rate."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_LOBES = 6
"""Zero crossings of the sinc on each side (torchaudio's ``lowpass_filter_width``)."""
_ROLLOFF = 0.99
"""Cut-off as a part of the lower Nyquist frequency (torchaudio's ``rolloff``)."""
_LARGEST_KERNEL = 2**22
"""Weights of a filter bank that is kept (16 MiB): 44,100 to 16,000 Hz needs 70,560, 44,099 to 16,000 Hz 706 million."""
_BLOCK = 2**20
"""Weights that are computed at a time where no bank is kept (8 MiB)."""


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """Resamples with a Hann-windowed sinc, limited in band, and in bounded memory whatever the rates.

    torchaudio's ``Resample`` keeps one filter for each of the ``target / gcd`` phases, as long as ``source / gcd``
    samples: gigabytes for rates that share no factor. There the same filter is evaluated at each output sample instead,
    where it is not zero.

    Args:
        waveform: (samples,).
        source: Its rate in Hz.
        target: The new rate in Hz.

    Returns:
        (ceil(samples * target / source),), of the waveform's type.
    """
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    if source == target:
        return waveform
    width = _width(source, target)
    if target * (2 * width + source) <= _LARGEST_KERNEL:
        return _bank(source, target)(waveform)
    return _by_sample(waveform, source, target, width)


def _width(source: int, target: int) -> int:
    """Returns the samples of the source that the filter reaches on each side of an output sample."""
    return math.ceil(_LOBES * source / (min(source, target) * _ROLLOFF))


@lru_cache(maxsize=16)
def _bank(source: int, target: int) -> torch.nn.Module:
    """Builds the filters of a pair of rates, once per process."""
    from torchaudio.transforms import Resample

    return Resample(source, target)


def _by_sample(waveform: Tensor, source: int, target: int, width: int) -> Tensor:
    """Applies the filter of torchaudio's ``Resample``, block by block of output samples."""
    length = -(-len(waveform) * target // source)
    padded = torch.nn.functional.pad(waveform, (width, width + 1))
    windows = padded.unfold(0, 2 * width + 1, 1)  # windows[i] holds the samples from i - width to i + width
    out = torch.empty(length, dtype=waveform.dtype, device=waveform.device)
    for start in range(0, length, step := max(1, _BLOCK // (2 * width + 1))):
        position = torch.arange(start, min(start + step, length), device=waveform.device) * source
        nearest, rest = position // target, position % target  # exact: integers
        weights = _filter(rest, source, target, width).to(waveform.dtype)
        out[start : start + step] = (windows[nearest] * weights).sum(dim=1)
    return out


def _filter(rest: Tensor, source: int, target: int, width: int) -> Tensor:
    """Returns (N, 2 * width + 1) weights of N output samples, ``rest / target`` source samples behind their nearest."""
    cutoff = min(source, target) * _ROLLOFF / source  # of the source's Nyquist frequency
    taps = torch.arange(-width, width + 1, dtype=torch.float64, device=rest.device)
    offset = taps - rest[:, None].double() / target
    time = (offset * cutoff).clamp(-_LOBES, _LOBES)
    window = torch.cos(time * torch.pi / _LOBES / 2).square()
    return torch.sinc(time) * window * cutoff

"""Top-k masks: exact thresholds by radix histogram, one bit a weight, overlap by popcount."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 24  # entries histogrammed at once
SCOPES = ("matrix", "layer", "global")


def kth_largest(entries: Callable[[int], Tensor], indices: Sequence[int], k: int) -> tuple[float, int]:
    """The k-th largest of the non-negative entries of several tensors, exactly, without concatenating them.

    Non-negative float32 numbers are ordered like their bits: a histogram of the upper 16 bits finds the bin, one of
    the lower 16 inside it the value. Two streaming passes, 512 KiB of state.

    Args:
        entries: Gives tensor ``i``; called twice for each index.
        indices: Which tensors.
        k: From 1 to the number of entries.

    Returns:
        The threshold, and how many of the entries equal to it belong to the top k.
    """
    upper = torch.zeros(1 << 16, dtype=torch.int64)
    for index in indices:
        for bits in _bit_chunks(entries(index)):
            upper += torch.bincount(bits >> 16, minlength=1 << 16).cpu()
    high, above = _bin_from_top(upper, k)
    lower = torch.zeros(1 << 16, dtype=torch.int64)
    for index in indices:
        for bits in _bit_chunks(entries(index)):
            inside = bits[(bits >> 16) == high]
            lower += torch.bincount(inside & 0xFFFF, minlength=1 << 16).cpu()
    low, above_low = _bin_from_top(lower, k - above)
    threshold = np.array([(high << 16) | low], dtype=np.int32).view(np.float32)[0]
    return float(threshold), k - above - above_low


def _bit_chunks(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.detach().float().contiguous().view(-1).view(torch.int32).split(CHUNK)


def _bin_from_top(histogram: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest, and how many entries lie in higher bins."""
    from_top = histogram.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_top, k))
    above = int(from_top[position - 1]) if position else 0
    return histogram.numel() - 1 - position, above


def top_masks(
    entries: Callable[[int], Tensor], groups: Sequence[Sequence[int]], fraction: float
) -> dict[int, np.ndarray]:
    """Packed masks of the top ``fraction`` of the entries of each group of matrices.

    Ties at the threshold go to the entry that comes first, so all ranks agree.

    Args:
        entries: Gives the scores (O, I) of matrix ``i``.
        groups: Matrices that compete with each other.
        fraction: In (0, 1].

    Returns:
        Index -> bits packed along the flattened matrix (numpy ``packbits``, big-endian).
    """
    packed: dict[int, np.ndarray] = {}
    for group in groups:
        total = sum(entries(index).numel() for index in group)
        threshold, ties = kth_largest(entries, group, max(1, round(fraction * total)))
        for index in group:
            values = entries(index).detach().float().flatten()
            chosen = values > threshold
            equal = (values == threshold).nonzero().flatten()[:ties]
            ties -= equal.numel()
            chosen[equal] = True
            packed[index] = np.packbits(chosen.cpu().numpy())
    return packed


def scope_groups(layers: Sequence[int | None], scope: str) -> list[list[int]]:
    """Which matrices compete: each alone, those of a layer, or all.

    Args:
        layers: Layer of each matrix.
        scope: One of ``matrix``, ``layer``, ``global``.

    Raises:
        ValueError: For another scope.
    """
    if scope not in SCOPES:
        raise ValueError(f"importance: top_scope={scope!r} is unknown; allowed: {', '.join(SCOPES)}")
    keys: dict[str, list[object]] = {
        "matrix": list(range(len(layers))),
        "layer": list(layers),
        "global": [0] * len(layers),
    }
    groups: dict[object, list[int]] = {}
    for index, key in enumerate(keys[scope]):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def unpack(packed: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Boolean mask (O, I) of packed bits."""
    count = shape[0] * shape[1]
    return torch.from_numpy(np.unpackbits(packed, count=count).astype(bool)).view(shape)


def overlap(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Size of the intersection and of the union of two packed masks."""
    return int(np.bitwise_count(first & second).sum()), int(np.bitwise_count(first | second).sum())

"""Top-k masks: exact thresholds by radix histogram over matrices and ranks, one bit a weight, overlap by popcount."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..foundation.ranks import Ranks

CHUNK = 1 << 24  # entries histogrammed at once
BINS = 1 << 16
SCOPES = ("matrix", "layer", "global")
Entries = Callable[[int], Tensor]


class Selection:
    """Picks the largest entries of groups of matrices; each rank processes its own part of the matrices.

    Non-negative float32 numbers are ordered like their bits: a histogram of the upper 16 bits (which are the number in
    bfloat16) finds the bin of the k-th largest, one of the lower 16 inside it the value: radix selection in two
    streaming passes, without concatenating anything. The histograms of the ranks are summed, so all find the same.

    Args:
        entries: Gives the non-negative scores (O, I) of matrix ``i``; called three times for each.
        sizes: Number of entries of each matrix.
        groups: Matrices that compete with each other.
        ranks: Who shares the work.
        gathered: Fetching the entries is a collective (FSDP): every rank requests all of them, in the same order.
    """

    def __init__(
        self,
        entries: Entries,
        sizes: Sequence[int],
        groups: Sequence[Sequence[int]],
        ranks: Ranks | None = None,
        gathered: bool = False,
    ) -> None:
        self._entries, self._sizes, self._groups = entries, sizes, groups
        self._ranks = ranks or Ranks(enabled=False)
        self._gathered = gathered

    def thresholds(self, counts: Sequence[int]) -> list[tuple[float, int]]:
        """Finds the ``counts[g]``-th largest entry of each group, and how many entries equal to it are in the top."""
        upper = torch.zeros(len(self._groups), BINS, dtype=torch.int64)
        for group, _, values in self._own():
            for bits in _bit_chunks(values):
                upper[group] += torch.bincount(bits >> 16, minlength=BINS).cpu()
        self._ranks.sum(upper)
        found = [_bin_from_top(row, k) for row, k in zip(upper, counts, strict=True)]
        lower = torch.zeros_like(upper)
        for group, _, values in self._own():
            for bits in _bit_chunks(values):
                inside = bits[(bits >> 16) == found[group][0]]
                lower[group] += torch.bincount(inside & (BINS - 1), minlength=BINS).cpu()
        self._ranks.sum(lower)
        results = []
        for row, k, (high, above) in zip(lower, counts, found, strict=True):
            low, above_low = _bin_from_top(row, k - above)
            value = np.array([(high << 16) | low], dtype=np.int32).view(np.float32)[0]
            results.append((float(value), k - above - above_low))
        return results

    def masks(self, fraction: float) -> dict[int, np.ndarray]:
        """Packs masks of the top ``fraction`` of each group; ties go to the first entry, in the matrices' order.

        Returns:
            Index -> bits packed along the flattened matrix (numpy ``packbits``, big-endian), of all matrices.
        """
        totals = [sum(self._sizes[index] for index in group) for group in self._groups]
        limits = self.thresholds([max(1, round(fraction * total)) for total in totals])
        above: dict[int, np.ndarray] = {}
        equal: dict[int, np.ndarray] = {}
        ties = torch.zeros(len(self._sizes), dtype=torch.int64)
        for group, index, values in self._own():
            flat = values.detach().float().flatten()
            same = flat == limits[group][0]
            ties[index] = int(same.sum())
            above[index], equal[index] = (np.packbits(part.cpu().numpy()) for part in (flat > limits[group][0], same))
        self._ranks.sum(ties)
        for members, (_, remaining) in zip(self._groups, limits, strict=True):
            for index in members:
                taken = min(remaining, int(ties[index]))
                remaining -= taken
                if taken and index in above:
                    above[index] |= _first_bits(equal[index], taken)
        return {index: bits for part in self._ranks.gather(above) for index, bits in part.items()}

    def _own(self) -> Iterator[tuple[int, int, Tensor]]:
        """Iterates over this rank's matrices: group, index and entries."""
        for group, members in enumerate(self._groups):
            for index in members:
                own = index % self._ranks.size == self._ranks.rank
                values = self._entries(index) if own or self._gathered else None
                if own and values is not None:
                    yield group, index, values


def _bit_chunks(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.detach().float().contiguous().view(-1).view(torch.int32).split(CHUNK)


def _bin_from_top(histogram: Tensor, k: int) -> tuple[int, int]:
    """Finds the bin that holds the k-th largest, and counts the entries in higher bins."""
    from_top = histogram.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_top, k))
    above = int(from_top[position - 1]) if position else 0
    return histogram.numel() - 1 - position, above


def _first_bits(packed: np.ndarray, count: int) -> np.ndarray:
    """Keeps the first ``count`` set bits of a packed mask and clears the others."""
    bits = np.unpackbits(packed)
    bits[np.flatnonzero(bits)[count:]] = 0
    return np.packbits(bits)


def scope_groups(layers: Sequence[int | None], scope: str) -> list[list[int]]:
    """Groups the matrices that compete: each alone, those of a layer, or all.

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
    """Unpacks bits to a boolean mask (O, I)."""
    count = shape[0] * shape[1]
    return torch.from_numpy(np.unpackbits(packed, count=count).astype(bool)).view(shape)


def overlap(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Counts the intersection and the union of two packed masks."""
    return int(np.bitwise_count(first & second).sum()), int(np.bitwise_count(first | second).sum())


def to_gaps(packed: np.ndarray) -> np.ndarray:
    """Codes a packed mask as gaps between its set bits, seven bits a byte, low bits first (LEB128).

    At 1 % a weight costs about 0.1 bit instead of one.
    """
    gaps = np.diff(np.flatnonzero(np.unpackbits(packed)), prepend=-1) - 1
    lengths = np.searchsorted([1 << 7 * n for n in range(1, 6)], gaps, side="right") + 1
    starts = np.cumsum(lengths) - lengths
    coded = np.zeros(int(lengths.sum()), dtype=np.uint8)
    for n in range(int(lengths.max(initial=0))):
        longer = lengths > n
        more = (lengths[longer] > n + 1).astype(np.uint8) << 7
        coded[starts[longer] + n] = ((gaps[longer] >> 7 * n) & 127).astype(np.uint8) | more
    return coded


def from_gaps(coded: np.ndarray, count: int) -> np.ndarray:
    """Restores the packed mask of ``count`` weights that :func:`to_gaps` coded."""
    ends = np.flatnonzero(coded < 128)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    gaps = np.zeros(ends.size, dtype=np.int64)
    for n in range(int((ends - starts).max(initial=-1)) + 1):
        longer = starts + n <= ends
        gaps[longer] |= (coded[starts[longer] + n].astype(np.int64) & 127) << 7 * n
    bits = np.zeros(count, dtype=np.uint8)
    bits[np.cumsum(gaps + 1) - 1] = 1
    return np.packbits(bits)

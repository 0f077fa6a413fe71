"""SpecAugment's masks over time, drawn for each clip at its true length."""

from __future__ import annotations

import torch
from torch import Tensor


def time_masks(lengths: list[int], size: int, share: float, span: int, fewest: int) -> Tensor:
    """Draws frames to hide (Park et al., 2019, arXiv 1904.08779, as wav2vec 2.0 uses it): spans that may overlap.

    transformers draws them over the padded batch and fails if the longest clip is shorter than a span. Here, the number
    of spans depends on the clip alone, and no clip loses more than half of its frames (or ``share``, if that is more);
    one too short for a span loses none.

    Args:
        lengths: Real frames of each clip.
        size: T, frames of the padded batch.
        share: Expected share of frames in spans, overlaps counted twice.
        span: Frames of a span.
        fewest: Minimum number of spans per clip, if they fit.

    Returns:
        (N, T), true at frames to hide; on the CPU, drawn from torch's default generator.
    """
    hidden = torch.zeros(len(lengths), size, dtype=torch.bool, device="cpu")
    for row, length in zip(hidden, lengths, strict=True):
        wanted = int(share * length / span + float(torch.rand((), device="cpu")))
        count = min(max(wanted, fewest), int(max(share, 0.5) * length / span))
        for start in torch.randperm(max(length - span + 1, 0), device="cpu")[:count].tolist():
            row[start : start + span] = True
    return hidden

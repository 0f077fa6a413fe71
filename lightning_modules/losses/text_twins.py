"""The questions of a batch as text."""

from __future__ import annotations

from ..contract import Batch


def as_text(batch: Batch) -> Batch:
    """Returns the text twins of a batch of speech, and a batch of text itself.

    Raises:
        ValueError: If a batch of speech has no text twins.
    """
    if batch.features.shape[0] == 0:
        return batch
    if batch.twin is None:
        raise ValueError("a batch of speech needs its text twins here (data.loader(..., twins=True))")
    return batch.twin

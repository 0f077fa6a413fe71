"""The change of the loss on a probe, example by example."""

from __future__ import annotations

import numpy as np

from .snapshot import Snapshot


def loss_changes(before: Snapshot, after: Snapshot) -> np.ndarray:
    """Returns the change (N,) of each example's loss, nats per token, in the order of ``before``'s examples.

    Raises:
        ValueError: If the two were not measured on the same examples.
    """
    if before.ids == after.ids:
        return np.asarray(after.losses - before.losses)
    place = {label: row for row, label in enumerate(after.ids)}
    if len(place) < len(after.ids) or sorted(before.ids) != sorted(after.ids):
        raise ValueError("importance: the losses are of different examples")
    return np.asarray(after.losses[[place[label] for label in before.ids]] - before.losses)

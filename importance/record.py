"""What is kept about a measurement's examples besides their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .losses import IGNORED


@dataclass
class Record:
    """One entry per example, in the order of the pass.

    Attributes:
        losses: Mean cross-entropy over the answer tokens, nats.
        tokens: Number of answer tokens.
        ids: Names.
        keys: Hashes of each example's content; see :func:`identities`.
    """

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def identities(batch: Mapping[str, Any], labels: Tensor, mask: Tensor) -> tuple[list[str], list[str]]:
    """Ids of a batch's examples, and hashes of id, answer tokens and (where given) input ids: the probe's fingerprint.

    Args:
        batch: Optionally ``ids`` and ``input_ids`` (B, T). An example without an id is called by its hash.
        labels: (B, T), -100 = not supervised.
        mask: (B, T), 1 = not padding.
    """
    inputs = batch.get("input_ids")
    given = batch.get("ids")
    ids, keys = [], []
    for row in range(len(labels)):
        digest = hashlib.sha256(str(labels[row][labels[row] != IGNORED].tolist()).encode())
        if inputs is not None:
            digest.update(str(inputs[row][mask[row].bool()].tolist()).encode())
        label = str(given[row]) if given is not None else digest.hexdigest()[:16]
        digest.update(label.encode())
        ids.append(label)
        keys.append(digest.hexdigest())
    return ids, keys

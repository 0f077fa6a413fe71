"""What a snapshot holds: scores, row and column sums, masks and maps of the matrices of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Matrix:
    """One scored weight.

    Attributes:
        name: Parameter name.
        shape: (out, in).
        layer: Decoder block, ``None`` outside.
        kind: ``q k v o gate up down`` or the path inside the block.
        head_dim: Size of an attention head, if it has heads.
        tied_to: Name of the module that shares the weight.
        equal_to: Name of the matrix whose signed score is equal by conservation: not separate evidence.
    """

    name: str
    shape: tuple[int, int]
    layer: int | None
    kind: str
    head_dim: int | None = None
    tied_to: str | None = None
    equal_to: str | None = None


@dataclass(frozen=True)
class Group:
    """What an estimator scores as a whole, if not the matrices of the table.

    Attributes:
        name: A layer's label, a matrix's name, or a head's output projection and number.
        layer: Decoder block.
        kind: ``layer``, ``head``, or the kind of the matrix.
        equal_to: Name of the group of this layer whose score is equal on every example: not separate evidence.
    """

    name: str
    layer: int
    kind: str
    equal_to: str | None = None


@dataclass
class SnapshotData:
    """The measurement of a model's weights on a probe.

    Attributes:
        table: The scored matrices, by depth.
        examples: Estimator -> scores (N, M) of N examples and M matrices; signed where the estimator is.
        totals: Estimator -> (M,), for estimators without per-example scores.
        rows: Estimator -> one array (O,) per matrix: mean over examples of row sums (of absolute row sums if signed).
        columns: Estimator -> one array (I,) a matrix.
        heads: One array a matrix with the signed score's E|s| of each attention head, empty where there are none.
        losses: (N,) mean answer-token loss of each example, nats.
        tokens: (N,) answer tokens.
        meta: Step, probe, options, versions (see ``storage``).
        masks: Estimator -> packed top-k bits, one array a matrix.
        maps: Estimator -> mean score of every weight (O, I), one tensor a matrix.
        groups: Estimator -> the G groups that it scores instead of the M matrices.
    """

    table: list[Matrix]
    examples: dict[str, np.ndarray]
    totals: dict[str, np.ndarray]
    rows: dict[str, list[np.ndarray]]
    columns: dict[str, list[np.ndarray]]
    heads: list[np.ndarray]
    losses: np.ndarray
    tokens: np.ndarray
    meta: dict[str, Any]
    masks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    maps: dict[str, list[Tensor]] = field(default_factory=dict)
    groups: dict[str, list[Group]] = field(default_factory=dict)

"""An overflowed measurement is refused: a score that is not a number would later pass for "no shift"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .record import Record


class NotFiniteError(RuntimeError):
    """A loss or a score of a measurement is infinite or not a number."""


def require_finite(name: str, record: Record, scores: Mapping[str, np.ndarray], matrices: Sequence[str]) -> None:
    """Refuses losses and scores that are infinite or not a number; all ranks see the same ones.

    Args:
        name: Of the probe.
        record: Its examples.
        scores: Estimator -> (N, M) of N examples, or (M,) of all together.
        matrices: Names of the M matrices.

    Raises:
        NotFiniteError: Naming the first.
    """
    for label, loss in zip(record.ids, record.losses, strict=True):
        if not np.isfinite(loss):
            raise NotFiniteError(
                f"importance: probe {name!r}: the loss of example {label} is {loss}: the weights are not finite, or "
                "the compute type overflows"
            )
    for estimator, values in scores.items():
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong):
            example = f" of example {record.ids[wrong[0][0]]}" if values.ndim > 1 else ""
            raise NotFiniteError(
                f"importance: probe {name!r}: {estimator} of {matrices[wrong[0][-1]]}{example} is "
                f"{values[tuple(wrong[0])]}, as of {len(wrong)} of {values.size} scores: the compute type overflows"
            )


def require_not_negative(scores: Mapping[str, np.ndarray], matrices: Sequence[str]) -> None:
    """Refuses negative scores, for which shares and top weights would be meaningless.

    Args:
        scores: Estimator -> (N, M) of N examples, or (M,) of all together.
        matrices: Names of the M matrices.

    Raises:
        ValueError: Naming the first.
    """
    for estimator, values in scores.items():
        wrong = np.argwhere(values < 0)
        if len(wrong):
            value = values[tuple(wrong[0])]
            raise ValueError(
                f"importance: {estimator} of {matrices[wrong[0][-1]]} is {value}: the scores of single weights must "
                "not be negative"
            )

"""How much the loss on the same texts has risen, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .statistics import Interval, bootstrap_ratio

Losses = Mapping[str, tuple[float, int]]
"""Id of a text -> its summed loss in nats and its number of tokens."""


class LossIncrease(NamedTuple):
    """A loss now, before, and the difference.

    Attributes:
        loss: Now, nats per token over all tokens.
        before: Before, of the same tokens.
        increase: The difference with its 95 % interval over texts.
    """

    loss: float
    before: float
    increase: Interval


def loss_increase(before: Losses, after: Losses) -> LossIncrease:
    """Compares the losses of the same texts before and after, in nats per token.

    The increase is sum_i (after_i - before_i) / sum_i tokens_i over the texts i: paired, so that the difficulty of a
    text cancels out. The interval resamples whole texts (:func:`bootstrap_ratio`).

    Args:
        before: Of each text.
        after: Of the same texts, with the same tokens.

    Raises:
        ValueError: If there is no text, or they are not the same.
    """
    names = sorted(after)
    if not names or any(name not in before or before[name][1] != after[name][1] for name in names):
        raise ValueError(f"loss_increase: the same texts expected, got {len(before)} before and {len(after)} after")
    tokens = [after[name][1] for name in names]
    total = sum(tokens)
    rises = [after[name][0] - before[name][0] for name in names]
    return LossIncrease(
        loss=sum(after[name][0] for name in names) / total,
        before=sum(before[name][0] for name in names) / total,
        increase=bootstrap_ratio(rises, tokens),
    )

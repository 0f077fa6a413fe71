"""The check of an attribution: parameters are actually reverted to their base values, and the loss is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..foundation.decoder import clean_name
from .edits import weights_at
from .evaluate import answer_losses
from .progress import Progress, counted


@dataclass(frozen=True)
class Revert:
    """Loss with some parameters reverted to their base values.

    Attributes:
        what: ``matrix``, ``together`` (the matrices before it at once), ``layer`` (the layer most to blame) or
            ``random`` (as many parameters, drawn from all others: the control).
        names: Parameters reverted.
        predicted: Nats by which they made the loss worse according to the attribution: what reverting them should
            regain.
        recovered: Nats actually regained; positive is a lower loss.
    """

    what: str
    names: list[str]
    predicted: float
    recovered: float


def blamed(parts: Mapping[str, float], count: int | None = None) -> list[str]:
    """Picks the parameters (or layers) to blame: those whose move made the loss worse, the worst first.

    Blame has one meaning and one sign, whether the loss rose or fell as a whole: positive nats.

    Args:
        parts: Name -> nats that its move added to the loss (:class:`Attribution`).
        count: How many; fewer if fewer made it worse. None takes all of them.
    """
    return sorted((name for name, nats in parts.items() if nats > 0), key=lambda name: -parts[name])[:count]


def revert_sets(
    parts: Mapping[str, float], layers: Mapping[str, str], sums: Mapping[str, float], count: int, seed: int
) -> list[tuple[str, list[str]]]:
    """Chooses what to revert: each parameter most to blame, all of them, as many others, the worst layer.

    Empty if none is to blame.
    """
    top = blamed(parts, count)
    if not top:
        return []
    others = [name for name in parts if name not in top]
    sets = [("matrix", [name]) for name in top]
    if len(top) > 1:
        sets.append(("together", top))
    if others:
        drawn = np.random.default_rng(seed).choice(len(others), size=min(len(top), len(others)), replace=False)
        sets.append(("random", [others[i] for i in sorted(drawn)]))
    return sets + [("layer", [name for name in parts if layers[name] == worst]) for worst in blamed(sums, 1)]


def measure_reverts(
    model: nn.Module,
    start: Mapping[str, Tensor],
    parts: Mapping[str, float],
    batches: Sequence[Mapping[str, Any]],
    after: float,
    sets: list[tuple[str, list[str]]],
    progress: Progress,
) -> list[Revert]:
    """Measures the loss regained when each set of parameters is reverted."""
    full = {clean_name(name): name for name in start}
    checks = []
    for what, names in counted(sets, "putting back", progress):
        with weights_at(model, [full[name] for name in names], start):
            loss = float(answer_losses(model, batches)[0].mean())
        checks.append(Revert(what, list(names), sum(parts[name] for name in names), after - loss))
    return checks

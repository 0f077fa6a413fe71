"""The check of an attribution: parameters are really put back to their base values, and the loss measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from .edits import weights_at
from .evaluate import answer_losses
from .progress import Progress, counted
from .sites import clean_name


@dataclass(frozen=True)
class Revert:
    """Loss with some parameters put back to their base values.

    Attributes:
        what: ``matrix``, ``together`` (the matrices before it at once), ``layer`` (the layer that is blamed most) or
            ``random`` (as many parameters, drawn from all others: the control).
        names: Parameters put back.
        predicted: Change of the loss that the attribution ascribes to them, nats.
        recovered: Loss actually regained, nats.
    """

    what: str
    names: list[str]
    predicted: float
    recovered: float


def revert_sets(
    parts: Mapping[str, float],
    layers: Mapping[str, str],
    sums: Mapping[str, float],
    direction: float,
    count: int,
    seed: int,
) -> list[tuple[str, list[str]]]:
    """What is put back: each of the top parameters, all of them, as many others, and the whole top layer."""
    if not count:
        return []
    order = sorted(parts, key=lambda name: direction * parts[name], reverse=True)
    top, others = order[:count], order[count:]
    sets = [("matrix", [name]) for name in top]
    if len(top) > 1:
        sets.append(("together", top))
    if others:
        drawn = np.random.default_rng(seed).choice(len(others), size=min(count, len(others)), replace=False)
        sets.append(("random", [others[i] for i in sorted(drawn)]))
    worst = max(sums, key=lambda label: direction * sums[label])
    return [*sets, ("layer", [name for name in parts if layers[name] == worst])]


def measure_reverts(
    model: nn.Module,
    start: Mapping[str, Tensor],
    parts: Mapping[str, float],
    batches: Sequence[Mapping[str, Any]],
    after: float,
    sets: list[tuple[str, list[str]]],
    progress: Progress,
) -> list[Revert]:
    """Loss regained when each set of parameters is put back."""
    full = {clean_name(name): name for name in start}
    checks = []
    for what, names in counted(sets, "putting back", progress):
        with weights_at(model, [full[name] for name in names], start):
            loss = float(answer_losses(model, batches)[0].mean())
        checks.append(Revert(what, list(names), sum(parts[name] for name in names), after - loss))
    return checks

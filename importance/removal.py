"""Removal test: what happens to the loss when the most, the least or some random weights are switched off.

Table 1 of arXiv 2509.23755: removing the top 3 % ruins the model, the bottom 3 % changes next to nothing, random lies
between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .edits import zeroed
from .estimators import ESTIMATORS, checked
from .evaluate import answer_losses, mean_interval, perplexity
from .masks import Selection, scope_groups, unpack
from .measurement import probe
from .progress import Progress, counted, silent
from .sites import sites_named
from .snapshot import Snapshot
from .state import unwrap

MODES = ("top", "random", "bottom")
_LARGEST = 0x7F7FFFFF  # bits of the largest finite float32


@dataclass(frozen=True)
class Removal:
    """One row of the removal test.

    Attributes:
        removed: ``none``, ``top``, ``random`` or ``bottom``.
        data: Name of the evaluation set.
        perplexity: Over its answer tokens.
        loss: Mean answer-token loss of an example, nats.
        increase: Mean over examples of the loss's increase.
        low: Lower end of its bootstrap 90 % interval.
        high: Upper end.
    """

    removed: str
    data: str
    perplexity: float
    loss: float
    increase: float
    low: float
    high: float


@dataclass(frozen=True)
class RemovalTest:
    """Result of :func:`removal_test`.

    Attributes:
        rows: One for each (mode, data set), the untouched model first.
        estimator: Whose scores chose the weights.
        fraction: Of the decoder's matrix entries.
        scope: What competed.
        ordered: Data set -> whether top > random > bottom in loss.
    """

    rows: list[Removal]
    estimator: str
    fraction: float
    scope: str
    ordered: dict[str, bool]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def removal_test(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    estimator: str = "taylor",
    fraction: float = 0.03,
    scope: str = "matrix",
    seed: int = 0,
    progress: Progress = silent,
    **options: Any,
) -> RemovalTest:
    """Scores every weight on ``batches``, then measures the loss with the top, random and bottom ``fraction`` at zero.

    Args:
        model: As for ``probe``; its weights end bit for bit as they were.
        batches: What importance is measured on.
        evaluations: Name -> batches on which the loss is measured; preferably other examples than ``batches``.
        estimator: One that scores single weights.
        fraction: In (0, 1).
        scope: ``matrix``, ``layer`` or ``global``.
        seed: Of the random choice.
        progress: Told what is being done.
        **options: Of ``probe``.

    Raises:
        ValueError: For a fraction out of range, an unknown scope, or an estimator without scores of single weights.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"importance: fraction={fraction} must lie in (0, 1)")
    (estimator,) = checked(estimator)
    if not ESTIMATORS[estimator].maps:
        allowed = ", ".join(name for name, spec in ESTIMATORS.items() if spec.maps)
        raise ValueError(f"importance: {estimator!r} does not score single weights; allowed: {allowed}")
    model = unwrap(model)
    scoring = counted(batches, f"scoring every weight ({estimator})", progress)
    snapshot = probe(model, scoring, estimator, keep_maps=(estimator,), vectors=False, **options)
    sites = sites_named(model, [m.name for m in snapshot.table], options.get("include", ()))
    groups = scope_groups([m.layer for m in snapshot.table], scope)
    autocast = options.get("autocast")

    def measured(what: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            name: answer_losses(model, counted(data, f"{what}, {name}", progress), autocast)
            for name, data in evaluations.items()
        }

    base = measured("nothing off")
    rows = [_row("none", name, found, found[0]) for name, found in base.items()]
    for mode in MODES:
        masks = _masks(snapshot, estimator, groups, fraction, mode, seed)
        with zeroed(dict(enumerate(sites)), masks):
            rows += [_row(mode, n, found, base[n][0]) for n, found in measured(f"{mode} {fraction:.1%} off").items()]
    loss = {(row.removed, row.data): row.loss for row in rows}
    ordered = {n: loss["top", n] > loss["random", n] > loss["bottom", n] for n in evaluations}
    return RemovalTest(rows, estimator, fraction, scope, ordered)


def _masks(
    snapshot: Snapshot, estimator: str, groups: list[list[int]], fraction: float, mode: str, seed: int
) -> dict[int, Tensor]:
    maps = snapshot.maps[estimator]

    def random(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        return torch.rand(maps[index].shape, generator=generator)

    def reverse(index: int) -> Tensor:
        """Reverses the order: non-negative floats are ordered like their bits, counted down from the largest."""
        return (_LARGEST - maps[index].float().contiguous().view(torch.int32)).view(torch.float32)

    entries = {"top": lambda i: maps[i], "bottom": reverse, "random": random}[mode]
    packed = Selection(entries, [m.numel() for m in maps], groups).masks(fraction)
    return {i: unpack(bits, snapshot.table[i].shape) for i, bits in packed.items()}


def _row(mode: str, name: str, found: tuple[np.ndarray, np.ndarray], base: np.ndarray) -> Removal:
    losses, tokens = found
    change = losses - base
    low, high = mean_interval(change)
    return Removal(mode, name, perplexity(losses, tokens), float(losses.mean()), float(change.mean()), low, high)

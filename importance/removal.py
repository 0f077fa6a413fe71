"""Removal test: what happens to the loss when the most, the least or some random weights are switched off.

Table 1 of arXiv 2509.23755: top 3 % off ruins the model, bottom 3 % off changes next to nothing, random lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .edits import zeroed
from .evaluate import answer_losses, perplexity
from .masks import Selection, scope_groups, unpack
from .probe import probe
from .sites import find_sites
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
        """Plain values for JSON."""
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
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> RemovalTest:
    """Scores every weight on ``batches``, then measures the loss with the top, random and bottom ``fraction`` at zero.

    Args:
        model: As for ``probe``; its weights end bit for bit as they were.
        batches: What importance is measured on.
        evaluations: Name -> batches on which the loss is measured; best other examples than ``batches``.
        estimator: One that scores single weights.
        fraction: In (0, 1).
        scope: ``matrix``, ``layer`` or ``global``.
        seed: Of the random choice.
        progress: Told what is being done.
        **options: Of ``probe``.
    """
    model = unwrap(model)
    groups = scope_groups([s.layer for s in find_sites(model).sites], scope)
    progress(f"scoring every weight ({estimator})")
    snapshot = probe(model, batches, estimator, keep_maps=(estimator,), vectors=False, **options)
    masks = {mode: _masks(snapshot, estimator, groups, fraction, mode, seed) for mode in MODES}
    sites = dict(enumerate(find_sites(model).sites))
    autocast = options.get("autocast")
    base = {name: answer_losses(model, data, autocast) for name, data in evaluations.items()}
    rows = [_row("none", name, found, found[0]) for name, found in base.items()]
    for mode in MODES:
        with zeroed(sites, masks[mode]):
            for name, data in evaluations.items():
                progress(f"{mode} {fraction:.1%} off, {name}")
                rows.append(_row(mode, name, answer_losses(model, data, autocast), base[name][0]))
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
        """Non-negative floats are ordered like their bits: counting down from the largest reverses the order."""
        return (_LARGEST - maps[index].float().contiguous().view(torch.int32)).view(torch.float32)

    entries = {"top": lambda i: maps[i], "bottom": reverse, "random": random}[mode]
    packed = Selection(entries, [m.numel() for m in maps], groups).masks(fraction)
    return {i: unpack(bits, snapshot.table[i].shape) for i, bits in packed.items()}


def _row(mode: str, name: str, found: tuple[np.ndarray, np.ndarray], base: np.ndarray) -> Removal:
    losses, tokens = found
    change = losses - base
    generator = np.random.default_rng(0)
    means = change[generator.integers(len(change), size=(2000, len(change)))].mean(axis=1)
    low, high = np.percentile(means, [5.0, 95.0])
    return Removal(
        mode, name, perplexity(losses, tokens), float(losses.mean()), float(change.mean()), float(low), float(high)
    )

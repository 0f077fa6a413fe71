"""The loss without a group of weights: each one is removed in turn, with forward passes only.

Zero ablation replaces a group's output by zero, mean ablation by its mean over the content tokens of the probe's
examples (Wang et al. 2022, arXiv 2211.00593; Li & Janson 2024, arXiv 2409.09951, compare these and others).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.decoder import eval_mode
from ..foundation.ranks import Ranks, is_sharded
from .losses import IGNORED, AnswerLoss
from .options import ProbeOptions
from .packing import packed_equally, packs
from .progress import Progress
from .rehearsal import ROWS
from .replay import Replay
from .site_table import SiteTable
from .snapshot_data import Group
from .targets import Change, Target, find_targets

Batch = Mapping[str, Any]
EQUAL = 1e-5  # of the largest effect: groups whose changes differ by less on every example count once


class Ablation:
    """Removes the groups of a model one after another, on the batches that it has kept.

    Blocks before a group are not run again (:class:`Replay`), unless a trial on the first two examples shows that a
    block's output changes by a single bit when the others are skipped: then every pass is a full one, with a warning.
    So it is without ``options.reuse_blocks``. With ``options.pack`` the examples of a batch share their beginning.

    Args:
        estimator: What the scores are called.
        model: The bare model.
        loss: Its loss.
        table: Its weights.
        options: What is removed, and what replaces it.
        ranks: That share the examples.
        progress: Called before each group and at the end, equally often on every rank.
        targets: The groups, if not all of the kind.

    Attributes:
        estimator: What the scores are called.
        targets: The groups.
        changes: (n, G) of this rank's examples: loss without the group minus loss, nats.
        resumes: Whether blocks are skipped, on every rank.
        tokens: Number of tokens behind the means; 0 without means.
    """

    def __init__(
        self,
        estimator: str,
        model: nn.Module,
        loss: AnswerLoss,
        table: SiteTable,
        options: ProbeOptions,
        ranks: Ranks,
        progress: Progress,
        targets: Sequence[Target] | None = None,
    ) -> None:
        self.estimator = estimator
        self._model, self._loss, self._ranks, self._progress = model, loss, ranks, progress
        self._blocks, self._what, self._mean = table.blocks, options.ablate, options.ablate_with == "mean"
        self._batches: list[Batch] = []
        self.targets = find_targets(table, options.ablate) if targets is None else list(targets)
        self.changes = np.zeros((0, len(self.targets)))
        self.resumes = options.reuse_blocks
        self._packs = options.pack and not is_sharded(model) and options.autocast is None and packs(model, loss)
        self.tokens = 0

    def keep(self, batch: Batch) -> None:
        """Keeps a batch of this rank until :meth:`run`."""
        self._batches.append(batch)

    @torch.no_grad()
    def run(self) -> None:
        """Measures everything kept; every rank must call it."""
        rounds = self._ranks.largest(len(self._batches))
        with eval_mode(self._model):
            tried = self.resumes
            self.resumes = tried and all(self._ranks.gather(self._replay_is_exact()))
            means = self._means(rounds) if self._mean else [None] * len(self.targets)
            found = [self._without_each(*step, means, rounds) for step in self._in_step(rounds)]
            self._tell(rounds, rounds)
        counted = [part for part in found if part is not None]
        self.changes = np.concatenate([self.changes, *counted])
        self._batches = []
        if tried and not self.resumes and self._ranks.rank == 0:
            warnings.warn(
                f"importance: the blocks of {type(self._model).__name__} cannot be run on their own: every group that "
                "is taken out costs a whole forward pass",
                stacklevel=2,
            )

    def _replay_is_exact(self) -> bool:
        if not self._batches:
            return True
        few = {k: v[:ROWS] if isinstance(v, Tensor) else v for k, v in self._batches[0].items()}
        labels = few["labels"]
        first = (labels[:, 1:] != IGNORED).int().argmax(
            1, keepdim=True
        ) + 1  # this only tests the blocks: one token is enough
        few["labels"] = torch.full_like(labels, IGNORED).scatter(1, first, labels.gather(1, first))
        return Replay(self._blocks).is_exact(lambda: self._loss.forward(few)[0])

    def _in_step(self, rounds: int) -> Iterator[tuple[int, Batch | None, bool]]:
        """Yields the number, the batch and whether it counts, equally often on every rank.

        Under FSDP, a rank that has finished repeats its last batch: the collectives of a forward pass need all ranks.
        """
        own = len(self._batches)
        for number in range(rounds):
            spare = self._batches[-1] if is_sharded(self._model) else None
            yield (number, self._batches[number], True) if number < own else (number, spare, False)

    def _without_each(
        self, number: int, batch: Batch | None, counted: bool, means: Sequence[Tensor | None], rounds: int
    ) -> np.ndarray | None:
        """Returns the changes (B, G) of a batch; ``None`` for one that does not count."""
        replay, changes = Replay(self._blocks), []
        if batch is not None:
            losses = self._reader(batch)
            with replay.recording():
                base = losses()
        for index, (target, mean) in enumerate(zip(self.targets, means, strict=True)):
            self._tell(number, rounds, index)
            if batch is not None:
                with target.taken_out(mean), replay.beginning_at(target.begins if self.resumes else 0):
                    changes.append(losses() - base)
        return torch.stack(changes, dim=1).cpu().numpy() if counted else None

    def _tell(self, number: int, rounds: int, index: int = 0) -> None:
        groups = len(self.targets)
        self._progress(f"taking out each {self._what}", number * groups + index, rounds * groups)

    def _reader(self, batch: Batch) -> Callable[[], Tensor]:
        """Returns what takes the losses (B,) of a batch as the model is then."""
        packed = packed_equally(batch, self._model, self._loss) if self._packs else None
        if packed is not None:
            return partial(packed.losses, self._loss)
        return lambda: self._loss.per_example(*self._loss.forward(batch)).double()

    def _means(self, rounds: int) -> list[Tensor | None]:
        """Averages each group's output over the content tokens of all examples on all ranks."""
        sums: dict[int, Tensor] = {}
        device = next(self._model.parameters()).device
        for _, batch, counted in self._in_step(rounds):
            if batch is None:
                continue
            content = batch.get("attention_mask")
            content = torch.ones_like(batch["labels"]) if content is None else content
            with ExitStack() as stack:
                for index, target in enumerate(self.targets):
                    stack.enter_context(target.seen_by(_adding(sums, index, content.bool() & counted)))
                self._loss.forward(batch)
            self.tokens += int(content.sum()) if counted else 0
        self.tokens = sum(self._ranks.gather(self.tokens))
        widths = next(w for w in self._ranks.gather([len(sums[i]) for i in range(len(sums))]) if w)
        for index, width in enumerate(widths):
            total = sums.setdefault(index, torch.zeros(width, dtype=torch.float64, device=device))
            self._ranks.sum(total)
        return [sums[index] / self.tokens for index in range(len(self.targets))]


def _adding(sums: dict[int, Tensor], index: int, chosen: Tensor) -> Change:
    """Adds a group's output at the chosen positions (B, T) to its sum."""

    def add(given: Tensor) -> None:
        rows = given.reshape(*chosen.shape, given.shape[-1])[chosen]
        part = rows.sum(0, dtype=torch.float64)
        sums[index] = sums[index] + part if index in sums else part

    return add


def marked_groups(groups: Sequence[Group], changes: np.ndarray) -> list[Group]:
    """Marks the groups of a layer that do the same to every example.

    The output of an MLP is zero without its gate, up or down matrix alike, as is that of attention without v or o; q
    and k agree if nothing lies between them.

    Args:
        groups: The G groups.
        changes: (N, G) on the examples of all ranks.
    """
    found: list[Group] = []
    rounding = EQUAL * float(np.abs(changes).max(initial=0.0))
    for index, group in enumerate(groups):
        twins = (
            other.name
            for place, other in enumerate(found)
            if other.layer == group.layer
            and other.equal_to is None
            and (np.abs(changes[:, place] - changes[:, index]) <= rounding).all()
        )
        found.append(replace(group, equal_to=next(twins, None)))
    return found

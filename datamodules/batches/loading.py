"""The data set that reads batches, and the loader that resumes in mid-epoch."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ..sources.bad_examples import BadExampleError, OnBadExample
from .batch import Batch
from .collator import Collator
from .rows import Row, RowReader, View
from .token_budget_sampler import TokenBudgetSampler

_MAX_REPLACEMENTS = 100


class Pick(NamedTuple):
    """A view to be read, and the epoch it is read in."""

    epoch: int
    view: int


@dataclass
class Unread:
    """What a worker gives in place of a batch of which nothing could be read.

    Args:
        errors: Why.
        fatal: Whether the run ends.
    """

    errors: list[BadExampleError]
    fatal: bool


class ViewDataset(Dataset[Batch | Unread]):
    """Reads whole batches: a function of (epoch, indices) alone, so that any worker may do it.

    A clip that turns out to be corrupt is left out under ``skip``.

    Args:
        views: What can be read.
        reader: Reads clips.
        collator: Makes the batch.
        on_bad_example: ``raise`` or ``skip``.
        refill: Whether a batch that would be empty takes the next example that can be read (training: every rank needs
            a batch at every step).
    """

    def __init__(
        self,
        views: Sequence[View],
        reader: RowReader,
        collator: Collator,
        on_bad_example: OnBadExample = "raise",
        refill: bool = False,
    ) -> None:
        self.views = views
        self.reader = reader
        self.collator = collator
        self.on_bad_example = on_bad_example
        self.refill = refill

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, pick: Pick) -> Batch | Unread:
        """A batch of one view."""
        return self.__getitems__([pick])

    def __getitems__(self, picks: list[Pick]) -> Batch | Unread:
        """The batch of these views (``DataLoader`` calls it with what the batch sampler yields).

        Errors are given instead of raised: raised in a worker they would come out as a page of traceback.
        """
        skipped: list[BadExampleError] = []
        rows: list[Row] = []
        try:
            for pick in picks:
                self._append(pick, rows, skipped)
            last = picks[-1]
            for offset in range(1, min(_MAX_REPLACEMENTS, len(self.views)) if self.refill else 0):
                if rows:
                    break
                other = (last.view + offset) % len(self.views)
                if self.views[other].modality == self.views[last.view].modality:
                    self._append(Pick(last.epoch, other), rows, skipped)
            return self.collator(rows, skipped) if rows else Unread(skipped, fatal=self.refill)
        except BadExampleError as error:
            return Unread([error], fatal=True)

    def _append(self, pick: Pick, rows: list[Row], skipped: list[BadExampleError]) -> None:
        try:
            rows.append(self.reader.read(self.views[pick.view], pick.epoch))
        except BadExampleError as error:
            if self.on_bad_example == "raise":
                raise
            skipped.append(error)


class EpochPosition(Sampler[list[Pick]]):
    """A batch sampler that starts anywhere in an epoch.

    Args:
        sampler: Plans the epochs.
        epoch: First epoch.
    """

    def __init__(self, sampler: TokenBudgetSampler, epoch: int = 0) -> None:
        self.sampler = sampler
        self.epoch = epoch
        self.start = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Pick]]:
        epoch = self.epoch
        for batch in self.sampler.batches(epoch)[self.start :]:
            yield [Pick(epoch, index) for index in batch]


class BatchLoader:
    """Gives batches, and continues in mid-epoch: its state is (epoch, batches given).

    What is given is not yet trained on: a checkpoint that is written in the middle of an optimizer step counts only the
    batches of finished steps (``lightning_modules.step_boundary``).

    Lightning stores ``state_dict()`` of the training loader in its checkpoints. As a batch is a function of seed,
    epoch and position, the state holds on every rank and for any number of workers. It wraps a ``DataLoader`` instead
    of being one, as Lightning rebuilds DataLoaders with samplers of its own.

    Args:
        dataset: Reads the batches.
        sampler: Plans them.
        on_skip: Called in the main process with the errors of examples that were left out.
        epoch: First epoch.
        num_workers: Processes that read; 0 reads in the main process.
        keep_workers: Whether they stay between epochs, until ``close``.
        limit: How much of an epoch is used, as the Trainer's ``limit_train_batches`` says it: a number of batches, or
            a float for a part of them.
        everywhere: Whether the loader claims at least one batch even where this rank has none. Lightning leaves a rank
            without batches out of the whole evaluation, and the others would wait for it.
    """

    def __init__(
        self,
        dataset: ViewDataset,
        sampler: TokenBudgetSampler,
        on_skip: Callable[[list[BadExampleError]], None],
        epoch: int = 0,
        num_workers: int = 0,
        keep_workers: bool = False,
        limit: int | float = 1.0,
        everywhere: bool = False,
    ) -> None:
        self.dataset = dataset
        self.position = EpochPosition(sampler, epoch)
        self.on_skip = on_skip
        self.limit = limit
        self.everywhere = everywhere
        self._given = 0
        self._resumed = False
        self._loader: DataLoader[Batch | Unread] = DataLoader(
            dataset,
            batch_sampler=self.position,
            collate_fn=_unchanged,  # type: ignore[arg-type]
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_interrupt,
            persistent_workers=keep_workers and num_workers > 0,
        )

    def __len__(self) -> int:
        return max(len(self.position), int(self.everywhere))

    @property
    def per_epoch(self) -> int:
        """Batches after which the Trainer ends an epoch."""
        return min(len(self), self.limit) if isinstance(self.limit, int) else int(len(self) * self.limit)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning makes an iterator that it may never use: only one that gave a batch ends an epoch.
        if self._given and not self._resumed:
            self.position.epoch += 1
            self._given = 0
        self._resumed = False
        self.position.start = self._given
        for batch in self._loader:
            if isinstance(batch, Unread):
                self._refuse(batch)  # unless it raises: a batch that ends the run was not given
                self._given += 1
                continue
            self._given += 1
            if batch.skipped:
                self.on_skip(batch.skipped)
            yield batch

    def close(self) -> None:
        """End the workers.

        Left to the garbage collector, which may close their queues first, each of them takes five seconds to notice.
        """
        iterator = self._loader._iterator
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()
        self._loader._iterator = None

    def _refuse(self, unread: Unread) -> None:
        if not unread.fatal:
            self.on_skip(unread.errors)
            return
        self.close()
        error = unread.errors[-1]
        if len(unread.errors) == 1:
            raise error
        more = f"{error.detail} (on_bad_example is skip, but no clip of {len(unread.errors)} could be read)"
        raise BadExampleError(error.reason, error.location, more)

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self.position.epoch, "batches": self._given, "of": len(self)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from there in the next iteration; a finished epoch (a limited one, too) is followed by the next one.

        With other data, another budget or another number of ranks the place cannot be exact: a warning says so.
        """
        if state["of"] != len(self):
            warnings.warn(
                f"the checkpoint was made with {state['of']} batches an epoch, now there are {len(self)}: training "
                f"continues with batch {state['batches']} of epoch {state['epoch']}, which holds other examples",
                stacklevel=2,
            )
        self.position.epoch = state["epoch"]
        self._given = state["batches"]
        self._resumed = self._given < self.per_epoch


def _ignore_interrupt(_: int) -> None:
    """Ctrl-C reaches the whole process group: the trainer answers it, and the workers read on until they are ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(batch: Batch | Unread) -> Batch | Unread:
    return batch

"""The loader that resumes mid-epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Sampler

from ..sources.bad_examples import BadExampleError
from .attendance import Attendance
from .batch import Batch
from .handing_over import NotHandedOver, hand_over
from .token_budget_sampler import TokenBudgetSampler
from .view_dataset import Pick, Unread, ViewDataset
from .worker_watch import WorkerWatch, end_workers


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
    """Gives batches, and continues mid-epoch: its state is (epoch, batches given).

    What is given is not yet trained on: a checkpoint that is written in the middle of an optimizer step counts only the
    batches of finished steps (``lightning_modules.saving.step_boundary``).

    Lightning stores ``state_dict()`` of the training loader in its checkpoints. As a batch is a function of seed,
    epoch and position, the state holds on every rank and for any number of workers. It wraps a ``DataLoader`` instead
    of being one, as Lightning rebuilds DataLoaders with samplers of its own.

    Args:
        dataset: Reads the batches.
        sampler: Plans them.
        on_skip: Receives, in the main process, the errors of examples that were left out.
        epoch: First epoch.
        num_workers: Processes that read; 0 reads in the main process.
        worker_timeout: Seconds after which a batch that does not come ends the run; None waits forever.
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
        worker_timeout: float | None = None,
        keep_workers: bool = False,
        limit: int | float = 1.0,
        everywhere: bool = False,
    ) -> None:
        self.dataset = dataset
        if num_workers:
            dataset.reading = torch.full((num_workers,), -1).share_memory_()
        self.position = EpochPosition(sampler, epoch)
        self.on_skip = on_skip
        self.limit = limit
        self.everywhere = everywhere
        self._given = 0
        self._resumed = False
        attendance = Attendance(num_workers)
        self._loader: DataLoader[Batch | Unread | NotHandedOver] = DataLoader(
            dataset,
            batch_sampler=self.position,
            collate_fn=hand_over,
            num_workers=num_workers,
            timeout=(worker_timeout or 0) if num_workers else 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=attendance,
            persistent_workers=keep_workers and num_workers > 0,
        )
        self._watch: WorkerWatch[Batch | Unread] = WorkerWatch(self._loader, dataset.read_by, attendance)

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
        for batch in self._watch.batches():
            if isinstance(batch, Unread):
                self._refuse(batch)  # unless it raises: a batch that ends the run was not given
                self._given += 1
                continue
            self._given += 1
            if batch.skipped:
                self.on_skip(batch.skipped)
            yield batch

    def close(self) -> None:
        """Ends the workers.

        Left to the garbage collector, which may close their queues first, each of them takes five seconds to notice.
        """
        end_workers(self._loader._iterator)
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

    def state_dict(self) -> dict[str, Any]:
        """Returns the position of the next batch, and what identifies the examples."""
        place = {"epoch": self.position.epoch, "batches": self._given, "of": len(self)}
        return {**place, "views": len(self.dataset), "digest": self.dataset.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a position in the next iteration; after a finished (or limited) epoch with the next one.

        With other data, another budget or another number of ranks the place cannot be exact: a warning says so.
        """
        place = f"training continues with batch {state['batches']} of epoch {state['epoch']}"
        if state.get("digest") not in (None, self.dataset.digest):  # earlier versions have none
            rank_zero_warn(
                f"data.train or data.replay holds other examples than when the checkpoint was made ({state['views']} "
                f"rows then, {len(self.dataset)} now): {place} of the new ones",
                stacklevel=2,
            )
        elif state["of"] != len(self):
            rank_zero_warn(
                f"the checkpoint was made with {state['of']} batches an epoch, now there are {len(self)}: {place}, "
                "which holds other examples",
                stacklevel=2,
            )
        self.position.epoch = state["epoch"]
        self._given = state["batches"]
        self._resumed = self._given < self.per_epoch

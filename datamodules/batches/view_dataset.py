"""The data set that reads whole batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ...foundation.errors import MachineError
from ..sources.bad_examples import BadExampleError, OnBadExample
from ..sources.example import name_examples
from .batch import Batch
from .collator import Collator
from .handing_over import NotHandedOver
from .rows import Row, RowReader, View
from .view_digest import view_digest

_MAX_REPLACEMENTS = 100


class Pick(NamedTuple):
    """A view to be read, and the epoch it is read in."""

    epoch: int
    view: int


@dataclass
class Unread:
    """What a worker gives in place of a batch in which nothing could be read.

    Args:
        errors: Why.
        fatal: Whether the run ends.
    """

    errors: list[BadExampleError]
    fatal: bool


class ViewDataset(Dataset[Batch | Unread | NotHandedOver]):
    """Reads whole batches: a function of (epoch, indices) alone, so that any worker may do it.

    A clip that turns out to be corrupt is left out under ``skip``.

    Args:
        views: What can be read.
        reader: Reads clips.
        collator: Makes the batch.
        on_bad_example: ``raise`` or ``skip``.
        refill: Whether a batch that would be empty takes the next example that can be read (training: every rank needs
            a batch at every step).

    Attributes:
        reading: Per worker the view that it reads, -1 for none, in memory that the main process sees; None without
            workers.
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
        self.reading: Tensor | None = None

    def __len__(self) -> int:
        return len(self.views)

    @cached_property
    def digest(self) -> str:
        """Identifies these views."""
        return view_digest(self.views)

    def __getitem__(self, pick: Pick) -> Batch | Unread | NotHandedOver:
        """Reads a batch of one view."""
        return self.__getitems__([pick])

    def __getitems__(self, picks: list[Pick]) -> Batch | Unread | NotHandedOver:
        """Reads the batch of these views (``DataLoader`` calls it with what the batch sampler yields).

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
        except MachineError as error:
            if get_worker_info() is None:
                raise
            return NotHandedOver(str(error))

    def read_by(self, workers: Iterable[int]) -> str:
        """Names the clips that workers, given by number, read at this moment; nothing if they read none."""
        reading = [] if self.reading is None else self.reading.tolist()
        return name_examples([self.views[reading[w]].example for w in workers if reading[w] >= 0])

    def _append(self, pick: Pick, rows: list[Row], skipped: list[BadExampleError]) -> None:
        self._note(pick.view)
        try:
            rows.append(self.reader.read(self.views[pick.view], pick.epoch))
        except BadExampleError as error:
            if self.on_bad_example == "raise":
                raise
            skipped.append(error)
        self._note(-1)

    def _note(self, view: int) -> None:
        """Leaves word of what is read, for the case that this worker dies of it or never comes back."""
        worker = get_worker_info()
        if worker is not None and self.reading is not None:
            self.reading[worker.id] = view

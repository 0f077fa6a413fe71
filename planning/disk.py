"""What a run writes: checkpoints and snapshots of importance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from ..callbacks import ImportanceTracker
from ..datamodules import SpeechTextData
from ..importance.estimators import ESTIMATORS
from ..importance.site_table import SiteTable
from .moments import Sizes

FLOAT32 = 4


@dataclass(frozen=True)
class Disk:
    """Bytes on disk.

    Attributes:
        checkpoint: Of one checkpoint.
        checkpoints: How many are kept; None where all are kept and their number is not known.
        snapshot: Of the snapshots of all probes at one step.
        snapshots: Steps at which importance is measured; None where that is not known.
    """

    checkpoint: int
    checkpoints: int | None
    snapshot: int
    snapshots: int | None

    @property
    def most(self) -> int | None:
        """The most that there is at once, with the checkpoint that is being written; None if it is not known."""
        if self.checkpoints is None or self.snapshots is None:
            return None
        return self.checkpoint * (self.checkpoints + (1 if self.checkpoints else 0)) + self.snapshot * self.snapshots


def planned_disk(
    sizes: Sizes, table: SiteTable, data: SpeechTextData, callbacks: Sequence[Callback], validations: int | None
) -> Disk:
    """Adds up what a run writes.

    Args:
        sizes: Of the model.
        table: The matrices whose importance is measured.
        data: Its probes.
        callbacks: Of the fit.
        validations: How many there are, or None.
    """
    kept = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    whole = any(not callback.save_weights_only for callback in kept)
    size = (sizes.trained + (sizes.optimizer if whole else 0)) if kept else 0
    counts = [_kept(callback, validations) for callback in kept]
    trackers = [callback for callback in callbacks if isinstance(callback, ImportanceTracker)]
    snapshot = sum(_snapshot(tracker, table, data) for tracker in trackers)
    # the untouched model, every validation's checkpoint (the last one is the end's)
    measured = None if validations is None and trackers else (1 + (validations or 0)) if trackers else 0
    return Disk(size, None if None in counts else sum(c or 0 for c in counts), snapshot, measured)


def _kept(callback: ModelCheckpoint, validations: int | None) -> int | None:
    return validations if callback.save_top_k == -1 else callback.save_top_k


def _snapshot(tracker: ImportanceTracker, table: SiteTable, data: SpeechTextData) -> int:
    """Returns the bytes of a measurement of all probes: sums of rows and columns, scores of examples, masks."""
    names = tracker.probes if tracker.probes is not None else tuple(data.probes)
    shapes = [site.shape for site in table.sites]
    sums = sum(sum(shape) for shape in shapes)
    weights = sum(math.prod(shape) for shape in shapes)
    entries = [name for name in tracker.estimators if not ESTIMATORS[name].ablated]
    fraction = tracker.options["top_fraction"]
    masks = int(min(1.0, (fraction or 0) * 8) * weights / 8)  # a byte a chosen weight or a bit a weight
    one = len(entries) * (sums * FLOAT32 if tracker.options["vectors"] else 0) + len(entries) * masks
    examples = sum(data.probes[name].examples for name in names if name in data.probes)
    return one * len(names) + examples * len(entries) * len(shapes) * 2 * FLOAT32

"""Makes a run slow and loud in the places where a test wants to send it a signal.

Named in a config as ``class_path: tests.support.marks.Marks``; the tests' folder must be on PYTHONPATH.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Marks(Callback):
    """Prints ``MARK <place> <step>`` on every rank and waits a little, in each of the places that are named.

    Args:
        slow: Seconds by place: ``train`` (before each batch), ``validate``, ``test``, ``predict`` (the same there),
            ``importance`` (before each batch of a probe), ``items`` (before each batch of an evaluation),
            ``setup`` (while the model is built).
    """

    def __init__(self, slow: dict[str, float]) -> None:
        self.slow = slow

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        probes, loader = data.probe_batches, data.loader
        data.probe_batches = lambda name: Slow(probes(name), lambda: self._mark(trainer, "importance"))
        data.loader = lambda *words, **more: Slow(loader(*words, **more), lambda: self._mark(trainer, "items"))
        self._mark(trainer, "setup")

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._mark(trainer, "train")

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._mark(trainer, "validate")

    def on_test_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._mark(trainer, "test")

    def on_predict_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._mark(trainer, "predict")

    def _mark(self, trainer: Trainer, place: str) -> None:
        if place in self.slow:
            print(f"MARK {place} {trainer.global_step}", flush=True)
            time.sleep(self.slow[place])


class Slow:
    """Batches before each of which something is done."""

    def __init__(self, batches: Any, before: Callable[[], None]) -> None:
        self._batches, self._before = batches, before

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return Slow(self._batches[place], self._before)
        self._before()
        return self._batches[place]

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            self._before()
            yield batch

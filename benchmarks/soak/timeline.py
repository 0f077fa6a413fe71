"""The timeline of a run: a callback writes it to a file outside the run directory, and the killer reads it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

VARIABLE = "SOAK_TIMELINE"
"""Environment variable with the path of the file."""


@dataclass(frozen=True)
class Event:
    """A place in a run.

    Attributes:
        name: The hook that was reached.
        batches: Training batches that were read, over all epochs.
        at: When, in seconds.
    """

    name: str
    batches: int
    at: float


class Timeline(Callback):
    """Writes a line to the file named by ``SOAK_TIMELINE`` whenever rank zero reaches a hook."""

    def __init__(self) -> None:
        path = os.environ.get(VARIABLE)
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _note(self, name: str, trainer: Trainer) -> None:
        if self._file is not None and trainer.is_global_zero:
            batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
            os.write(self._file, f"{name} {batches} {time.time():.4f}\n".encode())

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("train_start", trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("batch_start", trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("batch_end", trainer)

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("save", trainer)

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("validation_start", trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("validation_batch", trainer)

    def on_validation_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("validation_epoch_end", trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("validation_end", trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Records it."""
        self._note("train_end", trainer)

    def teardown(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Records it."""
        self._note("teardown", trainer)


def read_timeline(path: Path, start: int = 0) -> tuple[list[Event], int]:
    """Reads the events of complete lines.

    Args:
        path: The file, which need not exist yet.
        start: Bytes already read.

    Returns:
        The events and the bytes read so far.
    """
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    fields = [line.split() for line in whole.decode().splitlines()]
    return [Event(name, int(batches), float(at)) for name, batches, at in fields], start + len(whole)

"""Writing checkpoints so that none is ever incomplete."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from ...foundation.errors import RunError
from ...foundation.files import remove_at_once, replacing
from ...foundation.sharded_checkpoint import is_sharded_checkpoint, read_sharded


class CheckpointError(OSError):
    """A checkpoint cannot be written; ``filename`` is its path, ``strerror`` says why and what room there is."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, waits for the disk, and renames it; reads as Lightning does.

    Lightning's own writes to the folder for temporary files and moves, which copies where that is another file system:
    a process killed in the meantime leaves half a file under the name of a complete one, and a full ``/tmp`` leaves
    none. It also keeps a second copy of the file in memory, which this one does not.

    It reads and removes sharded checkpoints too, which are folders; ``FSDP2`` writes them.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint, whole or not at all; the previous file of that name stays until it is whole.

        Args:
            checkpoint: What to write.
            path: The file; of an address such as ``s3://…`` Lightning's own way is taken.
            storage_options: Refused, as by Lightning.

        Raises:
            CheckpointError: If the disk does not take it: full, over quota, read-only.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        if path.is_dir():  # the same step, saved by a strategy that makes folders
            remove_at_once(path)
        try:
            with replacing(path, lasting=True) as temporary, temporary.open("wb") as file:
                _write(checkpoint, file)
        except OSError as error:
            free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
            room = f"{_size(checkpoint):,} bytes needed, {free:,} free"
            raise CheckpointError(error.errno, f"{error.strerror or error} ({room})", str(path)) from error

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint; of a sharded one the whole tensors, on the CPU."""
        if is_sharded_checkpoint(path):
            return read_sharded(Path(path), weights_only)
        return super().load_checkpoint(path, map_location or (lambda storage, _: storage), weights_only)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint, all of it in one step."""
        if is_sharded_checkpoint(path):
            remove_at_once(Path(path))
        else:
            super().remove_checkpoint(path)


def after_saving(trainer: Trainer, action: Callable[[], None]) -> None:
    """Does something on this rank when the checkpoint that was saved last is on the disk: at once, or in its turn."""
    later = getattr(trainer.strategy, "after_saving", None)
    if later is None:
        action()
    else:
        later(action)


def finish_saving(trainer: Trainer) -> None:
    """Waits until the checkpoint that was saved last is on the disk, where training goes on while it is written.

    Raises:
        RunError: If it could not be written, on all ranks.
    """
    finish = getattr(trainer.strategy, "finish_saving", None)
    if finish is not None:
        finish()


def write_whole(trainer: Trainer) -> None:
    """Lets a Trainer write its checkpoints with :class:`WholeCheckpoints`, unless it was given another way."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpoints()


class _Noting:
    """A file that keeps the first write error, which torch would replace by its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def _write(checkpoint: Mapping[str, Any], file: IO[bytes]) -> None:
    noting = _Noting(file)
    try:
        torch.save(checkpoint, noting)  # type: ignore[arg-type] # it needs write() and flush()
    except RuntimeError as error:
        if noting.error is not None:
            raise noting.error from error
        raise


def _size(value: Any) -> int:
    """Counts the bytes of the tensors, each storage once."""
    found: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, Mapping):
            for item in value.values():
                visit(item)
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)

    visit(value)
    return sum(found.values())


def write_together(trainer: Trainer, write: Callable[[], None], before: str) -> None:
    """Has a checkpoint written, on all ranks together.

    Args:
        trainer: Of the ranks.
        write: Lightning's way, which ends with a barrier.
        before: The newest file so far; empty if there is none.

    Raises:
        RunError: If there is no room for it, on all ranks.
    """
    problem = None
    try:
        write()
    except CheckpointError as error:
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks wait for this one
        kept = f"{before} is kept, --ckpt_path last continues from it" if before else "there is none before it"
        problem = f"the checkpoint {error.filename} cannot be written: {error.strerror}; {kept}"
    if (problem := trainer.strategy.broadcast(problem)) is not None:
        raise RunError(problem)

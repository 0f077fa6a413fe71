"""Writing a checkpoint in parts, each rank its own, while training goes on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, distributed
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter, async_save
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor

from ...foundation.errors import RunError, UserError
from ...foundation.files import put_in_place, sync, sync_folder
from ...foundation.ranks import Ranks
from ...foundation.shard_files import REST, write_listing
from ...foundation.sharded_checkpoint import named_tensors, without_parts
from ...foundation.sharding import own_part
from .stamped_files import StampedFiles

LARGEST = 2**30
"""Bytes of a file, if it holds more than one tensor: so much is in memory once more while it is written."""


class ShardedSaving:
    """Writes checkpoints one after another, and runs what follows each of them in order.

    Args:
        timeout: How long ranks wait for each other.
    """

    def __init__(self, timeout: Any) -> None:
        # Of its own: collectives of a step and of a checkpoint come in any order. Threads of NCCL's do not take CPU.
        self._group: Any = distributed.new_group(backend="gloo", timeout=timeout)
        self._queue = _thread()
        self._written: Future[Any] | None = None
        self._jobs: list[Future[Any]] = []
        self._path = Path()

    def write(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Copies this rank's parts to the CPU and begins to write them; every rank must come here.

        Args:
            checkpoint: Lightning's, with sharded tensors.
            path: The folder that it becomes, in one step, when all parts are on the disk.

        Raises:
            UserError: If the path is an address, such as ``s3://…``.
            RunError: If the one before could not be written.
        """
        if ":/" in str(path):
            raise UserError(f"FSDP2.checkpoints: sharded makes a folder on a disk, not {path}; allowed: whole")
        self.wait()
        save = _of_rank_zero(secrets.token_hex(6))
        folder = path.with_name(f".{path.name}.{save}.tmp")
        parts = {name: value for name, value in named_tensors(checkpoint) if isinstance(value, DTensor)}
        _together(lambda: _write_rest(without_parts(checkpoint, parts), folder), path)
        writer = _Writer(folder, path, _files(parts), save)
        self._path = path
        self._written = async_save(parts, storage_writer=writer, process_group=self._group)  # type: ignore[assignment]
        self._jobs.append(self._queue.submit(self._written.result))  # type: ignore[union-attr]

    def after(self, action: Callable[[], None]) -> None:
        """Does something when the checkpoint that is being written is on the disk; not at all if it does not come."""
        written = self._written

        def follow() -> None:
            if written is None or written.exception() is None:
                action()

        self._jobs.append(self._queue.submit(follow))

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk, and what follows on it is done.

        Raises:
            RunError: If it could not be written, on all ranks.
        """
        jobs, self._jobs = self._jobs, []
        try:
            for job in jobs:
                job.result()
        except (Exception, CheckpointException) as error:  # the second is a BaseException
            raise RunError(_refusal(self._path, error)) from error

    def close(self) -> None:
        """Waits for what is left to do; another checkpoint may follow. A warning says what could not be written."""
        try:
            self.wait()
        except RunError as error:
            rank_zero_warn(str(error))
        self._queue.shutdown()
        self._queue = _thread()


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "checkpoint")


class _Writer(HuggingFaceStorageWriter):
    """Gives a checkpoint its name when all ranks have written and fsynced their parts."""

    def __init__(self, folder: Path, path: Path, files: dict[str, int], save: str) -> None:
        super().__init__(str(folder), files, save_distributed=True)
        self.fs = StampedFiles(save)
        self._folder, self._target, self._save = folder, path, save

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        tensors: Any = metadata.state_dict_metadata  # numbers and objects are elsewhere
        write_listing(self._folder, self._save, {name: tuple(entry.size) for name, entry in tensors.items()})
        put_in_place(self._folder, self._target)


def _files(parts: Mapping[str, Tensor]) -> dict[str, int]:
    """Numbers the file of each tensor."""
    files, size, number = {}, 0, 1
    for name, part in parts.items():
        bytes_here = own_part(part).nbytes
        if size and size + bytes_here > LARGEST:
            size, number = 0, number + 1
        files[name] = number
        size += bytes_here
    return files


def _write_rest(rest: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True)
    torch.save(apply_to_collection(rest, Tensor, Tensor.cpu), folder / REST)
    sync(folder / REST)
    sync_folder(folder)


def _together(write: Callable[[], None], path: Path) -> None:
    """Has rank zero do something that may fail; then it fails on all ranks."""
    problem = None
    if Ranks().rank == 0:
        try:
            write()
        except (OSError, RuntimeError) as error:
            problem = _refusal(path, error)
    if (problem := _of_rank_zero(problem)) is not None:
        raise RunError(problem)


def _of_rank_zero(value: Any) -> Any:
    found = [value]
    distributed.broadcast_object_list(found, src=0)
    return found[0]


def _refusal(path: Path, error: BaseException) -> str:
    causes = getattr(error, "failures", None)
    if causes:  # torch.distributed.checkpoint: rank -> the error and where it was raised
        error = next(iter(causes.values()))[0]
    reason = getattr(error, "strerror", None) or error
    return f"the checkpoint {path} cannot be written: {reason}; --ckpt_path last continues from the one before it"

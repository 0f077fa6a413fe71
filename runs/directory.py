"""The directory of a run: which one a command writes to, who may write there, and where it may continue from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import yaml

from ..foundation.errors import UserError
from ..foundation.files import remove_unfinished, replacing, write_json
from ..foundation.run_names import (
    CONFIG,
    ERROR,
    EVALUATION,
    FINISHED,
    IMPORTANCE,
    METRICS,
    PICTURES,
    WANDB,
    WANDB_RUN,
    WEIGHT_CHANGE,
    lock_name,
)
from .belonging import mapping, read_config
from .launch import Launch
from .run_lock import RunLock

STARTUP = {CONFIG, WANDB, WANDB_RUN}
"""What a run leaves in its directory before it does anything."""
RECORDS = (METRICS, PICTURES, IMPORTANCE, EVALUATION, WEIGHT_CHANGE)
"""What a fit leaves as it progresses."""


class RunDirectory:
    """Where a command writes: the resolved ``trainer.default_root_dir``.

    Attributes:
        path: The directory.
        fresh: Whether this process has just made it for a new run.
        goes_on: Whether a run that began there continues, from a checkpoint or from the start.
        begins_again: Whether it does so from the start, since its first attempt left no checkpoint.
        lock: Held while this process writes there; None for the ranks that do not write.
    """

    def __init__(self, path: Path, *, fresh: bool, goes_on: bool = False, lock: RunLock | None = None) -> None:
        self.path = path
        self.fresh = fresh
        self.goes_on = goes_on
        self.begins_again = False
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.lock = lock

    @classmethod
    def claim(cls, wanted: Path, config: Callable[[Path], str], verb: str = "fit") -> RunDirectory:
        """Makes a directory for a new run and leaves its config there.

        A non-empty directory belongs to another run: then ``<name>-2``, ``<name>-3``, … are tried. If several runs
        start at the same moment, one gets the lock of a directory and the others take the next ones.

        Args:
            wanted: The directory to take if it is free.
            config: Returns the text of ``config.yaml`` for the chosen directory.
            verb: ``fit``, ``validate``, ``test`` or ``predict``, the command that will write there.

        Raises:
            UserError: If there is a file with this name.
        """
        if wanted.is_file():
            raise UserError(f"trainer.default_root_dir: {wanted} is a file; allowed: a run directory, new or not")
        launch = Launch.of()
        for number in count(1):
            taken = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            taken.mkdir(parents=True, exist_ok=True)
            lock = RunLock(taken / lock_name(verb), launch)
            if not _is_free(taken, lock) or not lock.try_acquire():
                continue
            if _is_free(taken, lock):
                with replacing(taken / CONFIG) as temporary:
                    temporary.write_text(launch.mark + config(taken), encoding="utf-8")
                return cls(taken, fresh=True, lock=lock)
            lock.release()
        raise AssertionError("count() does not end")

    @classmethod
    def scratch(cls) -> RunDirectory:
        """Makes a directory for a run that keeps nothing; it is removed with this object."""
        temporary = tempfile.TemporaryDirectory(prefix="textkeep-")
        directory = cls(Path(temporary.name), fresh=False)
        directory._temporary = temporary
        return directory

    @classmethod
    def take(cls, path: Path, verb: str = "fit", *, goes_on: bool = False) -> RunDirectory:
        """Claims the directory of a run, and removes files that killed processes left half-written.

        Args:
            path: The directory.
            verb: ``fit``, ``validate``, ``test`` or ``predict``, the command that will write there.
            goes_on: Whether the run continues.

        Raises:
            UserError: If another process writes there.
        """
        lock = RunLock(path / lock_name(verb), Launch.of())
        lock.acquire()
        if verb == "fit":
            remove_unfinished(path)
        return cls(path, fresh=False, goes_on=goes_on, lock=lock)

    def forget_progress(self) -> None:
        """Removes the records of a lost attempt; the id of its W&B run stays."""
        for name in (*RECORDS, ERROR, FINISHED):
            entry = self.path / name
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    def go_on(self, text: str, step: int) -> None:
        """Updates ``config.yaml`` to the run's settings from now on, and marks it as neither failed nor finished.

        Args:
            text: The config of the continuation.
            step: The step at which it begins.
        """
        continue_config(self.path, text, step)
        for name in (ERROR, FINISHED):
            (self.path / name).unlink(missing_ok=True)

    def finish(self, step: int) -> None:
        """Records that the fit has finished."""
        write_json({"step": step}, self.path / FINISHED)

    def release(self) -> None:
        """Lets other processes write there.

        A fresh directory in which nothing has happened is removed, so that the next attempt gets the same name.
        """
        if self.lock is not None:
            self.lock.release()
        if self.fresh and self.path.is_dir() and {entry.name for entry in self.path.iterdir()} <= STARTUP:
            shutil.rmtree(self.path)


def _is_free(directory: Path, lock: RunLock) -> bool:
    """Returns whether it contains only the lock, perhaps of a process that was killed before it began."""
    return not any(entry for entry in directory.iterdir() if entry != lock.path)


def continue_config(directory: Path, text: str, step: int) -> None:
    """Updates ``config.yaml`` for a continued run; the previous version stays beside it.

    The old one becomes ``config.until_step=000008.yaml``. The run's original starting point (``ckpt_path``) and the
    mark of its SLURM job are kept, so that the file can still start such a run.

    Args:
        directory: The run directory.
        text: The config of the continuation.
        step: The step at which it begins.
    """
    path = directory / CONFIG
    before = read_config(path)
    old, new = mapping(before), yaml.safe_load(text)
    new["ckpt_path"] = old.get("ckpt_path")
    if new == old:
        return
    kept = directory / f"config.until_step={step:06d}.yaml"
    if not kept.exists():
        with replacing(kept) as temporary:
            temporary.write_text(before, encoding="utf-8")
    mark = before.splitlines(keepends=True)[0] if before.startswith("#") else ""
    with replacing(path) as temporary:
        temporary.write_text(mark + yaml.safe_dump(new, sort_keys=False), encoding="utf-8")

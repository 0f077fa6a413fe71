"""The directory of a run: which one a command writes to, and what it may be continued from."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from ..foundation.errors import UserError
from ..foundation.files import replacing
from ..foundation.run_names import CONFIG, WANDB, WANDB_RUN, newest_checkpoint

STARTUP = {CONFIG, WANDB, WANDB_RUN}
"""What a run leaves in its directory before it has done anything."""


class RunDirectory:
    """Where a command writes; ``trainer.default_root_dir`` as it is meant, not only as it is written.

    Attributes:
        path: The directory.
        fresh: Whether this process has just made it for a new run.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.fresh = fresh

    @classmethod
    def claim(cls, wanted: Path, config: Callable[[Path], str]) -> RunDirectory:
        """Makes a directory for a new run and leaves its config there.

        A directory that holds anything belongs to another run: then ``<name>-2``, ``<name>-3``, … are tried. The
        config file is created exclusively, so that two runs which start at the same moment get two directories.

        Args:
            wanted: The directory to take if it is free.
            config: Gives the text of ``config.yaml`` for the directory that is taken.

        Raises:
            UserError: If there is a file of this name.
        """
        if wanted.is_file():
            raise UserError(f"trainer.default_root_dir: {wanted} is a file; allowed: a run directory, new or not")
        for number in count(1):
            taken = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            taken.mkdir(parents=True, exist_ok=True)
            if any(taken.iterdir()):
                continue
            try:
                with (taken / CONFIG).open("x", encoding="utf-8") as file:
                    file.write(_job_mark() + config(taken))
            except FileExistsError:
                continue
            return cls(taken, fresh=True)
        raise AssertionError("count() does not end")

    def release(self) -> None:
        """Removes a fresh directory in which nothing has happened: the next try shall get the same name."""
        if self.fresh and self.path.is_dir() and {entry.name for entry in self.path.iterdir()} <= STARTUP:
            shutil.rmtree(self.path)


def holds_run(directory: Path) -> bool:
    """Tells whether a run has written its config there."""
    return (directory / CONFIG).is_file()


def is_continuation(directory: Path, ckpt_path: str | None) -> bool:
    """Tells whether a fit goes on with the run in ``directory`` instead of beginning another one.

    It does when the checkpoint lies in the directory; one of another run starts a new run from its state.

    Args:
        directory: The run directory as configured.
        ckpt_path: The checkpoint's path, if there is one.
    """
    return ckpt_path is not None and directory.resolve() in Path(ckpt_path).resolve().parents


def directory_of_requeued_job(wanted: Path) -> Path | None:
    """Finds the directory in which this SLURM job began, when SLURM has started it again; else None.

    The job comes back with the words it was first given, so the directory is known by the mark in its config.

    Args:
        wanted: The run directory as configured.
    """
    mark = _job_mark()
    if not mark or int(os.environ.get("SLURM_RESTART_COUNT", "0")) == 0:
        return None
    candidates = [wanted, *_siblings(wanted)]
    return next((path for path in candidates if holds_run(path) and _first_line(path / CONFIG) == mark), None)


def _job_mark() -> str:
    """Gives the first line of the config of a run under SLURM; a job keeps its number when it is started again."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"# SLURM job {job}\n" if job else ""


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline()


def _siblings(directory: Path) -> list[Path]:
    """Gives the further runs of a name: ``<name>-2``, ``<name>-3`` and so on."""
    name = re.compile(re.escape(directory.name) + r"-\d+")
    return [path for path in directory.parent.glob(f"{directory.name}-*") if name.fullmatch(path.name)]


def newer_sibling(directory: Path) -> Path | None:
    """Finds a later run of the same name (``<name>-2``, …) with a newer checkpoint than this directory's; or None."""
    here = newest_checkpoint(directory)
    found = {path: newest_checkpoint(path) for path in _siblings(directory)}
    times = {path: file.stat().st_mtime for path, file in found.items() if file is not None}
    newest = max(times, key=lambda path: times[path], default=None)
    if newest is None or (here is not None and times[newest] <= here.stat().st_mtime):
        return None
    return newest


def continue_config(directory: Path, text: str, step: int) -> None:
    """Makes ``config.yaml`` say what a continued run does; what it said before stays beside it.

    The old one becomes ``config.until_step=000008.yaml``. Where the run came from at its beginning (``ckpt_path``) and
    the mark of its SLURM job are kept: the file remains one to begin such a run with.

    Args:
        directory: The run directory.
        text: The config of the continuation.
        step: At which it begins.
    """
    path = directory / CONFIG
    before = path.read_text(encoding="utf-8", errors="replace")
    old, new = _mapping(before), yaml.safe_load(text)
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


def _mapping(text: str) -> dict[str, Any]:
    """Tells what a YAML file says; nothing if it is damaged."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}

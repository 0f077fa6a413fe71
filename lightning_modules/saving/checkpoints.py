"""Finds a run's checkpoint and recognises damaged ones."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ...foundation.run_names import CHECKPOINTS, checkpoints
from ...foundation.shard_files import fault
from ...foundation.sharded_checkpoint import is_checkpoint, read_sharded
from ..precision import main_dtype

NEEDED = ("state_dict", "pytorch-lightning_version")
"""Keys of every Lightning checkpoint."""


def find_checkpoint(run_or_checkpoint: str | Path) -> Path:
    """Finds a checkpoint file: the given one, or a run directory's last readable one.

    Args:
        run_or_checkpoint: A ``.ckpt`` file (or folder, if it is sharded), or a directory that ``textkeep fit`` made.

    Raises:
        FileNotFoundError: If there is neither; the message says what was searched for.
        ValueError: If the file is damaged, or all of the run's are.
    """
    path = Path(run_or_checkpoint)
    if is_checkpoint(path):
        check_readable(path)
        return path
    found = checkpoints(path)
    if not found:
        folder = path / CHECKPOINTS
        raise FileNotFoundError(f"{path} is neither a checkpoint nor a run directory (no {folder / '*.ckpt'})")
    return newest_readable(found)


def newest_readable(files: Sequence[Path]) -> Path:
    """Returns the first intact checkpoint; a warning names the damaged ones before it.

    Args:
        files: Newest first.

    Raises:
        ValueError: If all are damaged.
    """
    problems: list[str] = []
    for path in files:
        if (problem := damage(path)) is None:
            if problems:
                rank_zero_warn(f"{'; '.join(problems)}; the one before is taken: {path}")
            return path
        problems.append(problem)
    raise ValueError(f"{'; '.join(problems)}; there is no other checkpoint in this run")


def check_readable(path: Path) -> None:
    """Refuses a damaged checkpoint, and names an intact one beside it.

    Raises:
        ValueError: If the file is damaged.
    """
    problem = damage(path)
    if problem is None:
        return
    others = [file for file in path.resolve().parent.glob("*.ckpt") if file != path.resolve()]
    beside = [file for file in others if not file.is_symlink() and damage(file) is None]
    newest = max(beside, key=lambda file: file.stat().st_mtime, default=None)
    raise ValueError(f"{problem}; {'there is no other beside it' if newest is None else f'beside it: {newest}'}")


def check_of_a_run(path: Path) -> None:
    """Refuses a file that is damaged, or intact but not a Lightning checkpoint (bare weights, for example).

    Raises:
        ValueError: Saying what it is instead.
    """
    check_readable(path)
    try:
        found = _read(path)
    except pickle.UnpicklingError:  # it holds objects of some class: Lightning decides what to do with it
        return
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    missing = [key for key in NEEDED if not isinstance(found, Mapping) or key not in found]
    if missing:
        raise ValueError(f"{path} is no checkpoint of a run: there is no {missing[0]!r} in it")


def damage(path: Path) -> str | None:
    """Says what is wrong with a checkpoint, or None if it is whole.

    A checkpoint is a zip archive whose directory stands at its end: a file that was cut short has none. Or it is a
    folder, which lists its files.
    """
    if path.is_dir():
        problem = fault(path)
        return None if problem is None else f"{path.resolve()} is damaged ({problem})"
    if zipfile.is_zipfile(path):
        return None
    size = path.stat().st_size
    return f"{path.resolve()} is damaged ({size:,} bytes: {'cut short or no checkpoint' if size else 'empty'})"


def weights_dtype(checkpoint: Path) -> torch.dtype:
    """Reads in which floating-point type a checkpoint's weights were trained, and not their values."""
    return main_dtype(_read(checkpoint)["state_dict"].values())


def read_settings(checkpoint: Path) -> dict[str, Any]:
    """Reads what a checkpoint says of its run, without weights: ``step`` and the model's arguments as ``model``."""
    found = _read(checkpoint)
    settings = {key: value for key, value in found["hyper_parameters"].items() if not key.startswith("_")}
    return {"step": int(found["global_step"]), "model": settings}


def _read(checkpoint: Path) -> Any:
    """Opens a checkpoint for what it says of itself, not for values of its tensors."""
    if checkpoint.is_dir():
        return read_sharded(checkpoint, values=False)
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)

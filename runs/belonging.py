"""Which run a starting command belongs to, judging by the existing runs."""

from __future__ import annotations

import glob
import json
import re
from pathlib import Path
from typing import Any

import yaml

from ..foundation.run_names import CONFIG, FINISHED, newest_checkpoint, step_of
from .launch import Launch

TRAINED = ("seed_everything", "model", "data")
"""The parts of a config that define what is trained."""


def holds_run(directory: Path) -> bool:
    """Returns whether a run has written its config there."""
    return (directory / CONFIG).is_file()


def is_continuation(directory: Path, ckpt_path: str | None) -> bool:
    """Returns whether a fit continues the run in ``directory`` instead of starting a new one.

    It does if the checkpoint lies in the directory; a checkpoint of another run starts a new run from its state.

    Args:
        directory: The run directory as configured.
        ckpt_path: The checkpoint's path, if there is one.
    """
    return ckpt_path is not None and directory.resolve() in Path(ckpt_path).resolve().parents


def directory_of_job(wanted: Path, text: str, launch: Launch | None = None) -> Path | None:
    """Finds the directory in which this command began, if SLURM or ``torchrun`` restarted it; otherwise None.

    It is restarted with its original arguments: the directory is recognised by the job's mark in its config. A job may
    contain several fits of one name, which the config tells apart. A config that was changed in the meantime continues
    its run if it trains the same model on the same data, in the same place of the job, and is not finished.

    Args:
        wanted: The run directory as configured.
        text: The config of the command.
        launch: Who started it; by default as stated in the environment.

    Returns:
        Of several directories, the one with the newest checkpoint whose run is not finished.
    """
    launch = Launch.of() if launch is None else launch
    if not (launch.again or launch.elastic):
        return None
    marks = {path: _first_line(path / CONFIG) for path in (wanted, *_siblings(wanted)) if holds_run(path)}
    here = [path for path, mark in marks.items() if mark == launch.mark]
    began = [path for path, mark in marks.items() if launch.began(mark)] if launch.again else here
    own = [path for path in began if same_run(path, text)] or [
        path for path in began if path in here and finished_step(path) is None and _same_training(path, text)
    ]
    return max([path for path in own if path in here] or own, key=_progress, default=None)


def _same_training(directory: Path, text: str) -> bool:
    old, new = mapping(read_config(directory / CONFIG)), mapping(text)
    return all(old.get(part) == new.get(part) for part in TRAINED)


def _progress(directory: Path) -> tuple[bool, float]:
    newest = newest_checkpoint(directory)
    return finished_step(directory) is None, newest.stat().st_mtime if newest else 0.0


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline()


def read_config(path: Path) -> str:
    """Reads the text of a config, damaged or not."""
    return path.read_text(encoding="utf-8", errors="replace")


def _siblings(directory: Path) -> list[Path]:
    """Returns the further runs of a name: ``<name>-2``, ``<name>-3`` and so on."""
    name = re.compile(re.escape(directory.name) + r"-\d+")
    return [path for path in directory.parent.glob(f"{glob.escape(directory.name)}-*") if name.fullmatch(path.name)]


def newer_sibling(directory: Path) -> Path | None:
    """Finds a later run of the same name (``<name>-2``, …) with a newer checkpoint than this directory's; or None."""
    here = newest_checkpoint(directory)
    found = {path: newest_checkpoint(path) for path in _siblings(directory)}
    times = {path: file.stat().st_mtime for path, file in found.items() if file is not None}
    newest = max(times, key=lambda path: times[path], default=None)
    if newest is None or (here is not None and times[newest] <= here.stat().st_mtime):
        return None
    return newest


def finished_step(directory: Path) -> int | None:
    """Returns the step at which the fit of a directory ended; None if it has not ended.

    If its last checkpoints were removed, it is meant to continue from an earlier one and is no longer finished.
    """
    try:
        finished = int(json.loads((directory / FINISHED).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    newest = newest_checkpoint(directory)
    step = None if newest is None else step_of(newest.name)
    return finished if step is None or step >= finished else None


def same_run(directory: Path, text: str) -> bool:
    """Returns whether a run has this config, regardless of its directory and starting point."""
    return _settings(read_config(directory / CONFIG)) == _settings(text)


def _settings(text: str) -> dict[str, Any]:
    """Returns the contents of a config, except the run's location and starting point."""
    found = mapping(text)
    found.pop("ckpt_path", None)
    if isinstance(trainer := found.get("trainer"), dict):
        trainer.pop("default_root_dir", None)
    return found


def mapping(text: str) -> dict[str, Any]:
    """Parses the text of a config; empty if it is damaged."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}

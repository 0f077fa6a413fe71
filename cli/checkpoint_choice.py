"""Which checkpoint ``--ckpt_path`` refers to, and which run directory a config belongs to."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..foundation.errors import UserError
from ..foundation.run_names import CHECKPOINTS, CONFIG, checkpoints, newest_checkpoint
from ..foundation.sharded_checkpoint import is_checkpoint
from ..lightning_modules.saving.checkpoints import check_of_a_run, newest_readable
from ..lightning_modules.saving.export_folder import is_export
from .config_files import config_files

NEWEST = "last"
"""The value of ``--ckpt_path`` that means the run's newest checkpoint."""


def checkpoint_to_load(directory: Path, ckpt_path: str | None, verb: str) -> str | None:
    """Returns the checkpoint that ``--ckpt_path`` refers to.

    Args:
        directory: The run directory as configured.
        ckpt_path: The option's value: a file, ``last`` for the newest whole checkpoint of the run directory, or None.
        verb: The command; only ``fit`` may begin without the checkpoint that ``last`` asks for.

    Returns:
        The path of a checkpoint, or None to begin afresh.

    Raises:
        UserError: If the file is missing or, for verbs other than ``fit``, the run's checkpoint is.
        ValueError: If it is damaged or was written by another program; for ``last``, if all of the run's are damaged.
    """
    if ckpt_path is None:
        return None
    if ckpt_path != NEWEST:
        if not Path(ckpt_path).exists():
            raise UserError(f"ckpt_path: no file {ckpt_path}; allowed: a checkpoint, 'last', or an export")
        if is_checkpoint(ckpt_path):
            check_of_a_run(Path(ckpt_path))
        elif not is_export(ckpt_path):
            raise UserError(f"ckpt_path: {ckpt_path} is a directory; allowed: a checkpoint, 'last', or an export")
        return ckpt_path
    found = checkpoints(directory)
    if not found and verb != "fit":
        raise UserError(f"ckpt_path: there is no 'last' checkpoint in {directory / CHECKPOINTS}")
    return str(newest_readable(found)) if found else None


def directory_of_config(argv: list[str], wanted: Path) -> Path:
    """Returns the run directory that a config belongs to: its own, if it is the config of a run that was moved.

    A run's ``config.yaml`` names the directory relative to where the run began. Read from another working directory or
    under another name, it still belongs to the run that contains it.

    Args:
        argv: The options of a training verb.
        wanted: ``trainer.default_root_dir`` as configured.
    """
    for path in reversed(list(config_files(argv))):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        value = (content.get("trainer") or {}).get("default_root_dir")
        if value is None:
            continue
        own = path.name == CONFIG and value == str(wanted) and newest_checkpoint(path.parent) is not None
        moved = own and path.parent.resolve() != wanted.resolve()
        return path.parent if moved else wanted
    return wanted

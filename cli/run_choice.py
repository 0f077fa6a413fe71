"""Which run a training command belongs to: the one its job started, the one ``last`` refers to, or a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..foundation.errors import UserError
from ..foundation.run_names import CHECKPOINTS
from ..runs.belonging import (
    directory_of_job,
    finished_step,
    holds_run,
    is_continuation,
    newer_sibling,
    same_run,
)
from ..runs.directory import RunDirectory
from .checkpoint_choice import NEWEST, checkpoint_to_load, directory_of_config
from .exported_model import take_export


class AlreadyFinishedError(Exception):
    """A restarted job had already finished: nothing is left to do, and nothing has failed."""


def choose_run(verb: str, config: Any, argv: list[str], text: Callable[[Path], str]) -> RunDirectory:
    """Chooses the directory to write to and sets ``config.ckpt_path`` to the checkpoint that it continues from.

    Rank zero chooses and claims the directory. It tells the other ranks once they can communicate (RunCallback), since
    their view of a network file system may be stale.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        config: Of the verb; ``ckpt_path`` is changed in place, and ``model`` where that is an export.
        argv: The options of the verb.
        text: Gives the text of ``config.yaml`` for a directory.

    Raises:
        AlreadyFinishedError: On all ranks, if the job was restarted or ``last`` was asked for and the fit is finished.
        UserError: If the checkpoint is missing, or another process writes to the directory.
        ValueError: If the checkpoint is damaged, or for ``last``, if all of the run's are.
    """
    wanted = Path(config.trainer.default_root_dir)
    if config.ckpt_path is not None:
        wanted = directory_of_config(argv, wanted)
    if config.trainer.fast_dev_run:
        config.ckpt_path = checkpoint_to_load(wanted, config.ckpt_path, verb)
        take_export(config, verb)
        return RunDirectory.scratch()
    if verb != "fit":
        return _to_measure(verb, config, wanted, text)
    began = directory_of_job(wanted, text(wanted))
    if began is not None or (config.ckpt_path == NEWEST and holds_run(wanted)):
        return _to_go_on(config, began or wanted, text)
    if config.ckpt_path == NEWEST:
        config.ckpt_path = None
        _tell(f"there is no checkpoint in {wanted / CHECKPOINTS}: a new run starts")
    config.ckpt_path = checkpoint_to_load(wanted, config.ckpt_path, verb)
    take_export(config, verb)  # refuses an export
    if is_continuation(wanted, config.ckpt_path):
        return _taken(wanted, config)
    return _claimed(wanted, verb, text)


def _to_measure(verb: str, config: Any, wanted: Path, text: Callable[[Path], str]) -> RunDirectory:
    if config.ckpt_path == NEWEST and not _chooses():
        config.ckpt_path = None
    config.ckpt_path = checkpoint_to_load(wanted, config.ckpt_path, verb)
    wanted = take_export(config, verb) or wanted
    if not holds_run(wanted):  # a future run must find its directory free
        return _claimed(wanted.with_name(f"{wanted.name}-{verb}"), verb, text)
    return RunDirectory.take(wanted, verb) if _chooses() else RunDirectory(wanted, fresh=False)


def _to_go_on(config: Any, directory: Path, text: Callable[[Path], str]) -> RunDirectory:
    """Continues a run that belongs to this command from its newest checkpoint or, without one, from the start."""
    finished, same = finished_step(directory), same_run(directory, text(directory))
    if finished is not None and same:  # recorded in a file that no longer changes, so all ranks see it
        raise AlreadyFinishedError(f"{directory} is finished (step {finished}): nothing to do")
    if not _chooses():
        config.ckpt_path = None
        return RunDirectory(directory, fresh=False)
    beginning = None if config.ckpt_path == NEWEST else checkpoint_to_load(directory, config.ckpt_path, "fit")
    taken = RunDirectory.take(directory, goes_on=True)
    try:
        config.ckpt_path = checkpoint_to_load(directory, NEWEST, "fit")
    except ValueError:
        taken.release()
        raise
    if config.ckpt_path is not None:
        _tell_continuation(directory, config.ckpt_path)
        return taken
    if finished is not None:
        taken.release()
        raise UserError(
            f"trainer.default_root_dir: {directory} holds a finished run (step {finished}) whose checkpoints are gone; "
            "allowed: another directory"
        )
    _tell(f"there is no checkpoint in {directory / CHECKPOINTS}: the run starts over there")
    config.ckpt_path = beginning
    taken.begins_again = True
    return taken


def _taken(directory: Path, config: Any) -> RunDirectory:
    if not _chooses():
        return RunDirectory(directory, fresh=False)
    taken = RunDirectory.take(directory, goes_on=True)
    _tell_continuation(directory, str(config.ckpt_path))
    return taken


def _claimed(wanted: Path, verb: str, text: Callable[[Path], str]) -> RunDirectory:
    if not _chooses():
        return RunDirectory(wanted, fresh=False)
    directory = RunDirectory.claim(wanted, text, verb)
    if directory.path != wanted:
        _tell(f"{wanted} holds another run: this one goes to {directory.path}")
    return directory


def _chooses() -> bool:
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def _tell_continuation(directory: Path, ckpt_path: str) -> None:
    _tell(f"continuing {directory} from {ckpt_path}")
    if (newer := newer_sibling(directory)) is not None:
        _tell(f"{newer} is newer; to continue that one: --trainer.default_root_dir {newer}")


@rank_zero_only
def _tell(line: str) -> None:
    print(line, flush=True)

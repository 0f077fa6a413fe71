"""``textkeep fit``, ``validate``, ``test`` and ``predict``: how such a command starts and ends."""

from __future__ import annotations

import pickle
import sys
import traceback
from functools import partial
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..callbacks.stopping.stop_signals import STOP_SIGNALS
from ..foundation.errors import INTERRUPTED, TERMINATED, UserError
from ..foundation.quiet import quieten
from ..foundation.run_names import ERROR
from ..inference.yaml_classes import register_classes
from ..runs.belonging import holds_run
from ..runs.report.words import words
from ..runs.run import Run
from .config_files import check_config_files
from .ending import leave
from .errors import one_line, said_by_lightning
from .lightning_cli import TextKeepCLI
from .run_choice import AlreadyFinishedError
from .run_state import RunState


@rank_zero_only
def _tell_end(verb: str, state: RunState) -> None:
    """Prints the verdict on the run, if it was measured, and its directory."""
    if state.directory is None or not state.directory.path.is_dir():
        return
    if verb in ("fit", "test") and holds_run(state.directory.path):  # fast_dev_run leaves none
        for line in words([Run.open(state.directory.path)]):
            print(f"verdict: {line}", flush=True)
    print(f"run directory: {state.directory.path}", flush=True)


def run_verb(verb: str, argv: list[str]) -> int:
    """Runs a training command.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        argv: Its options.

    Returns:
        The exit code: 130 after Ctrl-C, 143 after SIGTERM.
    """
    state = RunState()
    with STOP_SIGNALS.listening(state.abandon):
        check_config_files(argv)
        quieten()
        register_classes()
        code = _carry_out(verb, argv, state)
        return leave(state.stopped, code) if code and state.stopped else code


def _carry_out(verb: str, argv: list[str], state: RunState) -> int:
    """Builds and runs the command; returns the exit code."""
    try:
        command = TextKeepCLI(verb, argv, state)
        command.call()
        if verb == "fit":
            _note_end(state, command.trainer)
    except AlreadyFinishedError as finished:
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            print(finished, flush=True)
        return 0
    except SystemExit as end:
        interrupted = state.callback is not None and state.callback.interrupted  # Lightning makes it a SystemExit
        if not interrupted and end.code != TERMINATED:
            raise
        STOP_SIGNALS.carry_out()
        _end_wandb(1)
        return INTERRUPTED if interrupted else TERMINATED
    except Exception as error:
        judged = state.callback.ranks.judge(error) if state.callback and state.callback.ranks else error
        if isinstance(judged, int):
            return judged
        if state.began and state.directory is not None:
            _keep_traceback(judged, state.directory.path / ERROR)
        if (told := _told_to_the_user(judged)) is not None:
            raise UserError(told) from judged
        raise judged from judged.__cause__
    finally:
        if not state.began and state.directory is not None:
            _end_wandb(1)
        if state.directory is not None:
            state.directory.release()
    _tell_end(verb, state)
    return 0


def _note_end(state: RunState, trainer: Trainer) -> None:
    if trainer.is_global_zero and state.directory is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        state.directory.finish(trainer.global_step)


def _keep_traceback(error: Exception, path: Path) -> None:
    """Writes the traceback of an error; if that fails too, the user is still told the error itself."""
    text = "".join(traceback.format_exception(error))
    try:
        path.write_text(text, encoding="utf-8")
        print(f"traceback: {path}", file=sys.stderr)
    except OSError as failure:
        print(f"the traceback was not kept: {failure}", file=sys.stderr)


def _told_to_the_user(error: Exception) -> str | None:
    """Returns the line about an error that is neither a bug nor one of our own errors."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "ckpt_path: the checkpoint holds objects besides numbers, texts and tensors, and making them could run "
            "code; allowed: one of `textkeep fit`, or --weights_only false if you trust whoever made it"
        )
    if isinstance(error, MisconfigurationException) or said_by_lightning(error):
        return one_line(error)
    return None


def _end_wandb(exit_code: int) -> None:
    """Ends the W&B run, if any, and W&B's process, before its directory is removed or the job is requeued."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)
        wandb.teardown(exit_code=exit_code)


fit = partial(run_verb, "fit")
validate = partial(run_verb, "validate")
test = partial(run_verb, "test")
predict = partial(run_verb, "predict")

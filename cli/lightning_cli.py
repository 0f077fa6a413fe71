"""``textkeep fit``, ``validate``, ``test`` and ``predict``: LightningCLI with run directories and one-line errors."""

from __future__ import annotations

import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from ..callbacks import GracefulStop
from ..callbacks.running.stop_signals import STOP_SIGNALS, Wish
from ..datamodules import SpeechTextData
from ..foundation.errors import INTERRUPTED, TERMINATED, UserError
from ..foundation.outputs import OVERWRITE
from ..foundation.quiet import quieten
from ..foundation.run_names import ERROR
from ..inference.yaml_classes import register_classes
from ..lightning_modules import SpeechLLM
from ..lightning_modules.supported_trainer import check_strategy_setting, check_supported
from ..runs.directory import RunDirectory
from .config_files import check_config_files
from .elastic_store import leave_agents_store
from .ending import leave
from .errors import EXPECTED, one_line, said_by_lightning
from .launch_checks import check_launch
from .run_callback import RunCallback
from .run_choice import AlreadyFinishedError, choose_run
from .run_defaults import TRAINER_DEFAULTS, default_callbacks, place_loggers
from .trainer_checks import check_trainer
from .training_parser import TrainingParser


@dataclass
class RunState:
    """How far a command came; it outlives a LightningCLI that fails while it is built."""

    directory: RunDirectory | None = None
    callback: RunCallback | None = None
    trainer: Trainer | None = None

    @property
    def began(self) -> bool:
        """Whether batches were run."""
        return self.callback is not None and self.callback.began

    def abandon(self) -> None:
        """Leaves nothing behind of a command that ends while it waits for other ranks."""
        if self.trainer is not None and self.trainer.strategy.launcher is not None:
            self.trainer.strategy.launcher.kill(signal.SIGTERM)  # ranks that this process has started
        if not self.began and self.directory is not None:
            self.directory.release()

    @property
    def stopped(self) -> Wish:
        """What the ranks agreed to stop for; before they could, whether SLURM asked rank zero to come again."""
        if self.callback is not None and self.callback.stopped:
            return self.callback.stopped
        requeue = STOP_SIGNALS.wish is Wish.REQUEUE and rank_zero_only.rank == 0  # type: ignore[attr-defined]
        return Wish.REQUEUE if requeue else Wish.NONE


class TextKeepCLI(LightningCLI):
    """LightningCLI for one model class and one data class; what varies inside them is a ``class_path``.

    It parses, chooses the run directory and makes the objects; :meth:`call` trains or measures.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``: a method of the Trainer.
        argv: Its options.
        state: Filled in as the command proceeds.
    """

    def __init__(self, verb: str, argv: list[str], state: RunState) -> None:
        self.verb = verb
        self.argv = argv
        self.state = state
        self.method_options: list[str] = []
        super().__init__(
            SpeechLLM,
            SpeechTextData,
            args=argv,
            run=False,
            parser_class=TrainingParser,
            parser_kwargs={"prog": f"textkeep {verb}", "allow_abbrev": False},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=None,  # the config is written when the directory is claimed
        )

    def call(self) -> None:
        """Calls the verb of the Trainer."""
        options = {name: self.config_init[name] for name in self.method_options}
        getattr(self.trainer, self.verb)(self.model, datamodule=self.datamodule, **options)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        given = self.subcommands()[self.verb]  # what this class gives to the method itself
        self.method_options = parser.add_method_arguments(Trainer, self.verb, skip=set(given))
        if self.verb != "fit":  # a fit takes another directory
            parser.add_argument(OVERWRITE, action="store_true", help="replace the records of an earlier call")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except EXPECTED:
            raise
        except Exception as error:  # a module that a config names may raise anything when it is imported
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}: {type(error).__name__}"
            raise UserError(f"a class of the config cannot be imported: {where}: {one_line(error)}") from error

    @override
    def before_instantiate_classes(self) -> None:
        verb, config = self.verb, self.config
        check_trainer(config.trainer)
        check_strategy_setting(config.trainer.strategy)
        check_launch(config.trainer)
        leave_agents_store()
        directory = choose_run(verb, config, self.argv, self._config_text)
        self.state.directory = directory
        overwrite = bool(config.get("overwrite"))
        self.state.callback = RunCallback(directory, self._config_text(directory.path), config.ckpt_path, overwrite)
        config.trainer.default_root_dir = str(directory.path)
        if verb == "predict":
            config.trainer.logger = False  # answers are no metrics
        place_loggers(config.trainer.logger, directory.path, verb)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self.config_init.trainer
        own = given.callbacks if isinstance(given.callbacks, list) else [given.callbacks] if given.callbacks else []
        added = default_callbacks(own, given, self.verb, self.model.tuning)
        stop = [callback for callback in own if isinstance(callback, GracefulStop)] or [GracefulStop()]
        others = [callback for callback in (*own, *added) if callback not in stop]
        # First: it gives way before the others measure, and looks before they speak with other ranks.
        trainer = super().instantiate_trainer(callbacks=[*stop, self.state.callback, *others], **kwargs)
        self.state.trainer = trainer
        check_supported(trainer)  # as the model does, but before there are further processes
        return trainer

    def _config_text(self, directory: Path) -> str:
        """Gives the whole config as YAML, for a run in ``directory``."""
        dumped = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        dumped.pop("config", None)
        dumped.pop("overwrite", None)
        dumped["trainer"]["default_root_dir"] = str(directory)
        return yaml.safe_dump(dumped, sort_keys=False)


@rank_zero_only
def _tell_directory(state: RunState) -> None:
    if state.directory is not None and state.directory.path.is_dir():
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
    """Builds and calls; gives the exit code."""
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
    _tell_directory(state)
    return 0


def _note_end(state: RunState, trainer: Trainer) -> None:
    if trainer.is_global_zero and state.directory is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        state.directory.finish(trainer.global_step)


def _keep_traceback(error: Exception, path: Path) -> None:
    """Writes the traceback of an error; where that fails too, the error is still what the user is told."""
    text = "".join(traceback.format_exception(error))
    try:
        path.write_text(text, encoding="utf-8")
        print(f"traceback: {path}", file=sys.stderr)
    except OSError as failure:
        print(f"the traceback was not kept: {failure}", file=sys.stderr)


def _told_to_the_user(error: Exception) -> str | None:
    """Gives the line about an error that is no defect, and no error of our own."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "ckpt_path: the checkpoint holds objects besides numbers, texts and tensors, and making them could run "
            "code; allowed: one of `textkeep fit`, or --weights_only false if you trust whoever made it"
        )
    if isinstance(error, MisconfigurationException) or said_by_lightning(error):
        return one_line(error)
    return None


def _end_wandb(exit_code: int) -> None:
    """Ends the W&B run, if there is one, and W&B's process, before its directory is removed or the job queued again."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)
        wandb.teardown(exit_code=exit_code)


fit = partial(run_verb, "fit")
validate = partial(run_verb, "validate")
test = partial(run_verb, "test")
predict = partial(run_verb, "predict")

"""LightningCLI for training and measuring: it parses, chooses the run directory and builds the objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from ..callbacks import GracefulStop
from ..datamodules import SpeechTextData
from ..foundation.class_paths import place
from ..foundation.errors import UserError
from ..foundation.outputs import OVERWRITE
from ..lightning_modules import SpeechLLM
from ..lightning_modules.supported_trainer import check_strategy_setting, check_supported
from .elastic_store import leave_agents_store
from .errors import EXPECTED, one_line
from .launch_checks import check_launch
from .run_callback import RunCallback
from .run_choice import choose_run
from .run_defaults import TRAINER_DEFAULTS, default_callbacks, place_loggers
from .run_state import RunState
from .trainer_checks import check_trainer
from .training_parser import TrainingParser


class TextKeepCLI(LightningCLI):
    """LightningCLI for one model class and one data class; variants inside them are chosen by ``class_path``.

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
        if self.verb in ("validate", "test"):
            options["verbose"] = False  # callbacks report the figures, each once
        getattr(self.trainer, self.verb)(self.model, datamodule=self.datamodule, **options)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        given = self.subcommands()[self.verb]  # arguments that this class passes to the method itself
        self.method_options = parser.add_method_arguments(Trainer, self.verb, skip={*given, "verbose"})
        if self.verb != "fit":  # a fit takes a new directory instead
            parser.add_argument(OVERWRITE, action="store_true", help="replace the records of an earlier call")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except EXPECTED:
            raise
        except Exception as error:  # a module named in a config may raise anything on import
            where = f"{place(error)}: {type(error).__name__}"
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
        # First, so that it yields before the others measure, and checks before they communicate with other ranks.
        trainer = super().instantiate_trainer(callbacks=[*stop, self.state.callback, *others], **kwargs)
        self.state.trainer = trainer
        check_supported(trainer)  # as the model does, but before further processes start
        return trainer

    def _config_text(self, directory: Path) -> str:
        """Returns the whole config as YAML, for a run in ``directory``."""
        dumped = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        dumped.pop("config", None)
        dumped.pop("overwrite", None)
        dumped["trainer"]["default_root_dir"] = str(directory)
        return yaml.safe_dump(dumped, sort_keys=False)

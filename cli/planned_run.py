"""The objects of a config, as a fit would make them, for a plan: no run directory, no Trainer, no logger."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from typing_extensions import override

from ..foundation.errors import UserError
from ..inference.yaml_classes import register_classes
from ..lightning_modules.sharding import FSDP2
from ..lightning_modules.sharding.parts import check_parts
from ..lightning_modules.supported_trainer import check_strategy_setting
from ..planning import Length, TrainerSettings
from .lightning_cli import TextKeepCLI
from .run_defaults import default_callbacks
from .run_state import RunState
from .trainer_checks import check_trainer


class PlannedRun(TextKeepCLI):
    """A config's model, data and callbacks.

    Args:
        options: As ``textkeep fit`` takes them.

    Attributes:
        callbacks: Those of the config, and those that a fit adds.
        replicas: Of ``FSDP2``; None where each rank holds all.
        reshard_after_forward: Of ``FSDP2``.

    Raises:
        ValueError: If part of the config cannot work where ranks share the weights out.
    """

    callbacks: list[Callback]
    replicas: int | None = None
    reshard_after_forward: bool = True

    def __init__(self, options: list[str]) -> None:
        register_classes()
        super().__init__("fit", options, RunState())

    @override
    def before_instantiate_classes(self) -> None:
        check_trainer(self.config.trainer)
        if self.config.trainer.strategy == "FSDP2":  # no name of Lightning's: a fit would end
            raise UserError("trainer.strategy: FSDP2 is a class; allowed: {class_path: FSDP2}, or the other strategies")
        check_strategy_setting(self.config.trainer.strategy)
        self.config.trainer.logger = False
        self.config.data.feature_cache = None  # made of weights
        self.config.data.on_bad_example = "raise"  # it is up to the plan to report a row that exceeds the budget

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Any:
        given = self.config_init.trainer
        own = given.callbacks if isinstance(given.callbacks, list) else [given.callbacks] if given.callbacks else []
        self.callbacks = [*own, *default_callbacks(own, given, "fit", self.model.tuning)]
        if isinstance(given.strategy, FSDP2):
            self.replicas = given.strategy.replicas
            self.reshard_after_forward = given.strategy.reshard_after_forward
            model: Any = self.model
            check_parts([model.tuning, model.ear, model, *model.objectives, *self.callbacks, self.datamodule])
        return None

    @property
    def devices(self) -> tuple[int, int]:
        """GPUs per node and nodes, as far as the config specifies them."""
        devices = self.config.trainer.devices
        if isinstance(devices, list):
            return len(devices), self.config.trainer.num_nodes
        return (int(devices) if str(devices).isdecimal() else 1), self.config.trainer.num_nodes

    def settings(self, gpu: bool) -> TrainerSettings:
        """Returns the Trainer's settings that determine the cost of a step.

        Args:
            gpu: Whether the plan is for GPUs, whatever the config says.
        """
        trainer = self.config.trainer
        precision = str(trainer.precision or "32-true")
        known = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}
        return TrainerSettings(
            known.get(precision, precision),
            trainer.accumulate_grad_batches,
            trainer.gradient_clip_val,
            gpu or trainer.accelerator in ("gpu", "cuda"),
            self.replicas,
            self.reshard_after_forward,
        )

    def length(self, examples: int | None) -> Length:
        """Returns how long the run is.

        Args:
            examples: Of training, if they are known.
        """
        trainer = self.config.trainer
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        every = 1.0 if trainer.val_check_interval is None else trainer.val_check_interval
        return Length(examples, epochs, every, trainer.check_val_every_n_epoch or 1)

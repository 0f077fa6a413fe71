"""Which strategies and precisions of Lightning's Trainer train this model correctly; the others are refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry

from .sharding import FSDP2
from .sharding.parts import check_parts

STRATEGIES = (SingleDeviceStrategy, DDPStrategy, FSDP2)
"""Exactly these classes, not subclasses: DeepSpeed's strategy is a DDPStrategy that shards."""
PRECISION_PLUGINS = (Precision, DoublePrecision, HalfPrecision, MixedPrecision)
PRECISIONS = ("32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed")


def check_supported(trainer: Trainer, parts: Iterable[object] = ()) -> None:
    """Refuses a Trainer that would not train what it appears to.

    Args:
        trainer: With its callbacks and data module.
        parts: Tuning and objectives, not all of which can be trained with sharded weights (``FSDP2``).

    Raises:
        ValueError: With what is allowed.
    """
    strategy: Any = trainer.strategy
    check_strategy(type(strategy), getattr(strategy, "_start_method", None) or "popen")
    if isinstance(strategy, FSDP2):
        check_parts([*parts, *trainer.callbacks, getattr(trainer, "datamodule", None)])  # type: ignore[attr-defined]
    precision = trainer.precision
    if precision not in PRECISIONS or type(trainer.precision_plugin) not in PRECISION_PLUGINS:
        name = precision if precision not in PRECISIONS else type(trainer.precision_plugin).__name__
        why = " (float16 weights without a loss scale become NaN)" if name == "16-true" else ""
        raise ValueError(f"trainer.precision: {name} is not supported{why}; allowed: {', '.join(PRECISIONS)}")


def check_strategy_setting(setting: Any) -> None:
    """Refuses a config's ``trainer.strategy`` before a Trainer is built from it.

    Args:
        setting: A Lightning name, or anything with a ``class_path`` (and ``init_args``).

    Raises:
        ValueError: If it names a strategy that is not supported. Unreadable settings are left to Lightning.
    """
    if isinstance(setting, str):
        if setting in StrategyRegistry:
            known: Any = StrategyRegistry[setting]
            check_strategy(known["strategy"], known["init_params"].get("start_method", "popen"))
        return
    path = getattr(setting, "class_path", None)
    if path is None:
        return
    module, _, name = path.rpartition(".")
    options = getattr(setting, "init_args", None) or {}
    check_strategy(getattr(import_module(module), name), options.get("start_method", "popen"))


def check_strategy(strategy: type, start_method: str = "popen") -> None:
    """Refuses a strategy by its class.

    If parameters are sharded by anything other than :class:`FSDP2` (FSDP, DeepSpeed, Lightning's
    ModelParallelStrategy), nothing here gathers them: the ranks would silently train apart. A forked or spawned process
    cannot return its weights to its parent.

    Args:
        strategy: Class of the Trainer's strategy.
        start_method: How it starts the processes for further devices.

    Raises:
        ValueError: With what is allowed.
    """
    allowed = "allowed: auto, ddp, ddp_find_unused_parameters_true, FSDP2 (one device, or one process a device)"
    if strategy not in STRATEGIES:
        reason = "nothing gathers what it divides among the ranks"
        raise ValueError(f"trainer.strategy: {strategy.__name__} is not supported: {reason}; {allowed}")
    if start_method != "popen":
        raise ValueError(f"trainer.strategy: processes that are started by {start_method} are not supported; {allowed}")

"""Optimizer over named groups, and its schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from ..foundation.run_names import layer_group
from .schedule import Schedule
from .tuning.tuning import ParameterGroup


def build_optimizer(
    factory: Callable[[Any], torch.optim.Optimizer],
    groups: list[ParameterGroup],
    objectives: Iterable[torch.nn.Parameter],
    schedule: Schedule,
    steps: float,
) -> OptimizerLRSchedulerConfig:
    """Builds what ``configure_optimizers`` returns.

    Args:
        factory: Builds the optimizer from a list of groups.
        groups: Of the tuning strategy.
        objectives: Parameters that belong to objectives (CTC's blank), at the optimizer's own rate.
        schedule: Stepped once per optimizer step.
        steps: Optimizer steps of the whole run, or infinity.

    Raises:
        ValueError: If nothing is trainable, the factory gives no optimizer, or the schedule needs an end that the run
            has not.
    """
    named: list[dict[str, Any]] = []
    for group in groups:
        own_rate = {} if group.lr is None else {"lr": group.lr}
        named.append({"params": group.parameters, "name": group.name, **own_rate})
    extra = [parameter for parameter in objectives if parameter.requires_grad]
    if extra:
        named.append({"params": extra, "name": "objectives"})
    if not named:
        raise ValueError("model.tuning: nothing is trainable")
    optimizer = _made(factory, named)
    # Fused optimizers take the loss scale of 16-mixed off inside their step. What edits gradients before it (token
    # counts are harmless, but a pull towards other weights, or clipping) must see them without: the scaler does it.
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer._step_supports_amp_scaling = False
    factors = {group.name: group.multiplier for group in groups}
    for made in optimizer.param_groups:
        made["unscaled_lr"] = made["lr"]  # travels in checkpoints: the rates may be measured anew after a resume
        made["lr"] *= factors.get(made["name"], 1.0)
    scheduler = schedule.build(optimizer, steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _made(factory: Callable[[Any], torch.optim.Optimizer], groups: list[dict[str, Any]]) -> Any:
    """Makes the optimizer; a config may name any function, which shows only when it is called."""
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    allowed = "allowed: a class of torch.optim, or a function of parameter groups that returns such an optimizer"
    try:
        made = factory(groups)
    except TypeError as error:
        raise ValueError(f"model.optimizer: {name} takes no parameter groups ({error}); {allowed}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise ValueError(f"model.optimizer: {name} gives no optimizer but {type(made).__name__}; {allowed}")
    return made


def scale_layers(optimizer: torch.optim.Optimizer, schedule: LambdaLR, multipliers: Sequence[float]) -> None:
    """Sets new learning-rate factors for the decoder layers, for the current step and the rest of the schedule.

    Args:
        optimizer: Made by :func:`build_optimizer`.
        schedule: Its schedule.
        multipliers: One per decoder layer; layers without a group are frozen.
    """
    by_name = {layer_group(layer): factor for layer, factor in enumerate(multipliers)}
    for index, group in enumerate(optimizer.param_groups):
        if group["name"] in by_name:
            base = group["unscaled_lr"] * by_name[group["name"]]
            group["initial_lr"] = schedule.base_lrs[index] = base
            group["lr"] = base * schedule.lr_lambdas[index](schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]

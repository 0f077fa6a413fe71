"""Settings of the trainer that Lightning accepts but cannot work with: refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace

from ..foundation.errors import UserError

Rule = tuple[Callable[[Any], bool], str]

AT_LEAST_ONE: Rule = (lambda value: value >= 1, "a whole number of at least 1")
NOT_NEGATIVE: Rule = (lambda value: value >= 0, "0 or more")

RULES: dict[str, Rule] = {
    "gradient_clip_val": (lambda value: value >= 0, "a number above 0, or null for no clipping"),
    "accumulate_grad_batches": AT_LEAST_ONE,
    "val_check_interval": (
        lambda value: value != 0,
        "a fraction of an epoch (0.5), a number of batches (100) or a time",
    ),
    "check_val_every_n_epoch": (lambda value: value >= 1, "at least 1, or null with a val_check_interval in batches"),
    "log_every_n_steps": NOT_NEGATIVE,
    "reload_dataloaders_every_n_epochs": NOT_NEGATIVE,
    "num_nodes": AT_LEAST_ONE,
    "num_sanity_val_steps": (lambda value: value >= -1, "0 or more, or -1 for the whole validation"),
    "min_steps": NOT_NEGATIVE,
    "min_epochs": NOT_NEGATIVE,
}
"""Option of the trainer -> a check of a value (never null), and the allowed values in words."""


def check_trainer(trainer: Namespace) -> None:
    """Refuses a value of ``RULES``: Lightning would divide by it, or turn the gradients around.

    Args:
        trainer: The ``trainer`` part of the config.

    Raises:
        UserError: With the key, the value, and what is allowed.
    """
    for option, (allows, allowed) in RULES.items():
        value = trainer.get(option)
        if isinstance(value, int | float) and not allows(value):
            raise UserError(f"trainer.{option}: {value:g} does not fit; allowed: {allowed}")

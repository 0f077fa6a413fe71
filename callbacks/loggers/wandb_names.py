"""The metrics of a W&B run, and their x axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...foundation.run_names import STEP_METRIC
from .wandb_failures import is_of_wandb

MANY_NAMES = 32
"""From here on new names are defined in the background: each is a round trip to the process of W&B."""


def define(run: Any, names: Sequence[str]) -> None:
    """Tells W&B that metrics are drawn over the optimizer step."""
    for name in names:
        # An unescaped dot would mean a nested value.
        run.define_metric(name.replace(".", r"\."), step_metric=STEP_METRIC, step_sync=True)


def define_if_alive(run: Any, names: Sequence[str]) -> None:
    """Does the same while W&B's process may end at any moment."""
    try:
        define(run, names)
    except Exception as error:  # its process was lost, or the run ended: the next call finds out
        if not is_of_wandb(error):
            raise

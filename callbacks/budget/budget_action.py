"""What to do about a budget: the contract."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ...evaluation import LossIncrease


@dataclass(frozen=True)
class Reading:
    """A measurement of a budget.

    Attributes:
        step: Optimizer steps taken.
        found: The loss, that of the untouched LLM, and the increase with its interval.
        allowed: The largest increase, nats a token.
        every: Optimizer steps between two measurements.
    """

    step: int
    found: LossIncrease
    allowed: float
    every: int

    @property
    def increase(self) -> float:
        """Nats a token, the estimate."""
        return self.found.increase.estimate

    @property
    def over(self) -> bool:
        """Whether the estimated increase is more than allowed, or not a number."""
        return not self.increase <= self.allowed


class BudgetAction(ABC):  # noqa: B024 - all hooks have a default
    """What ``TextBudget`` does about its budget. What varies is a subclass, named in YAML (``class_path``).

    Every rank calls every method with the same readings, and must do the same.
    """

    def needs_whole(self) -> str | None:
        """Names itself if it must meet whole weights, so that ranks cannot share them out (``FSDP2``); else None."""
        return type(self).__name__

    def check(self, pl_module: LightningModule) -> None:  # noqa: B027 - a hook
        """Refuses a model that it cannot act on; called before training.

        Raises:
            UserError: With what is allowed.
        """

    def start(self, pl_module: LightningModule) -> None:  # noqa: B027 - a hook
        """Puts its state in place: called before the first step, of a continued run too."""

    def resumed(self, trainer: Trainer, allowed: float) -> None:  # noqa: B027 - a hook
        """Repeats those of its decisions that no checkpoint holds; called after :meth:`start` in a continued run.

        Args:
            trainer: Before its first step.
            allowed: The largest increase, nats a token.
        """

    def measured(self, trainer: Trainer, pl_module: LightningModule, readings: list[Reading]) -> None:  # noqa: B027
        """Acts on a measurement of the schedule.

        Args:
            trainer: At the end of an optimizer step.
            pl_module: The model.
            readings: All so far, the newest last; the first is of the model as it began.
        """

    def finish(
        self, trainer: Trainer, pl_module: LightningModule, last: Reading, measure: Callable[[], Reading]
    ) -> bool:
        """Acts once more when the run ends.

        Args:
            trainer: At the end of the last optimizer step.
            pl_module: The model.
            last: The measurement of these weights.
            measure: Measures the weights as they are.

        Returns:
            Whether it changed the weights.
        """
        return False

    def figures(self) -> dict[str, float]:
        """Returns its figures to log with each measurement, by the end of the metric's name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold of it; plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - a hook
        """Restores what :meth:`state_dict` returned; ``{}`` is the state at the beginning of a fit."""

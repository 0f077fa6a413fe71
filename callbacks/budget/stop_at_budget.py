"""Ends a run at its budget."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from .budget_action import BudgetAction, Reading


class StopAtBudget(BudgetAction):
    """Ends the run, on all ranks together and as if it had come to its last step: validated, measured and saved.

    A run that is continued from that step ends there, too, unless ``max_increase`` is another by then.

    Args:
        ahead: Stop at the last measurement inside the budget: at the one after which the straight line through the last
            two passes the budget. Without it, or where the increase rises faster than that, the run ends at the first
            measurement over the budget, and says so.
    """

    def __init__(self, ahead: bool = True) -> None:
        self.ahead = ahead
        self._stopped: tuple[int, float] | None = None  # after which step, at which budget

    @override
    def needs_whole(self) -> str | None:
        """Names nothing: it changes no weight."""
        return None

    @override
    def resumed(self, trainer: Trainer, allowed: float) -> None:
        if self._stopped == (trainer.global_step, allowed):
            trainer.should_stop = True
            rank_zero_info(
                f"text budget: the run had ended at step {trainer.global_step}, at its budget of {allowed:g}"
            )

    @override
    def measured(self, trainer: Trainer, pl_module: LightningModule, readings: list[Reading]) -> None:
        last = readings[-1]
        if not last.over and not (self.ahead and _expected(readings) > last.allowed):
            return
        trainer.should_stop = True
        self._stopped = last.step, last.allowed
        low, high = last.found.increase[1:]
        said = f"{last.increase:+.3g} [{low:+.3g}, {high:+.3g}] nats/token of {last.allowed:g} allowed"
        inside = [reading.step for reading in readings if not reading.over]
        why = f"over the budget; inside it at step {inside[-1]}" if last.over else "the next one would pass the budget"
        rank_zero_info(f"text budget: the run ends at step {last.step}: {said}; {why}")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"stopped": self._stopped and list(self._stopped)}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        stopped = state.get("stopped")
        self._stopped = stopped and (stopped[0], stopped[1])


def _expected(readings: list[Reading]) -> float:
    """Returns the increase at the next measurement if it goes on rising as it did; never less than the last one."""
    if len(readings) < 2:
        return readings[-1].increase
    before, last = readings[-2:]
    slope = (last.increase - before.increase) / max(last.step - before.step, 1)
    return last.increase + max(slope, 0.0) * last.every

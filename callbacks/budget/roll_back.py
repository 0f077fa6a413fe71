"""Undoes as much of a run as its budget requires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from ...foundation.errors import UserError
from ..contract import WayBack
from .budget_action import BudgetAction, Reading


class RollBack(BudgetAction):
    """Ends a run that is over its budget with a model between the untouched LLM and its own, within the budget.

    The LLM's weights become (1 - alpha) untouched + alpha tuned (WiSE-FT, arXiv 2109.01903, equation 1), of LoRA alpha
    times what it adds; encoder and adaptor stay. Alpha is the largest that bisection finds at (1 - ``margin``) of the
    budget; which one it was is said and logged as ``budget/<text>/alpha``. With ``StopAtBudget`` before it the run ends
    where it passes the budget, alone at its last step. The optimizer's moments stay those of the run's own weights.

    Args:
        rounds: Measurements of the bisection: alpha is found to 1 / 2^rounds.
        margin: Part of the budget that is left free where the run goes back: the passages that are watched are a
            sample, and to end at the budget on them is to end over it on other text every second time.
    """

    def __init__(self, rounds: int = 5, margin: float = 0.2) -> None:
        if not 1 <= rounds <= 20:
            raise UserError(f"RollBack.rounds: {rounds} (allowed: 1 to 20)")
        if not 0 <= margin < 1:
            raise UserError(f"RollBack.margin: {margin} (allowed: at least 0 and below 1)")
        self.rounds = rounds
        self.margin = margin
        self._alpha: float | None = None

    @override
    def check(self, pl_module: LightningModule) -> None:
        tuning: Any = pl_module.tuning
        if not tuning.turns_back:
            allowed = "tuning of the LLM's own weights, or LoRA without DoRA"
            raise UserError(f"RollBack: {type(tuning).__name__} has no way back as set (allowed: {allowed})")

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._alpha = None  # a model that was turned back, and trained on, is on no such line

    @override
    def finish(
        self, trainer: Trainer, pl_module: LightningModule, last: Reading, measure: Callable[[], Reading]
    ) -> bool:
        if not last.over:
            return False
        model: Any = pl_module
        way: WayBack = model.way_back()

        def increase(alpha: float) -> float:
            way.apply(alpha)
            return measure().increase

        try:
            alpha = largest_inside(increase, (1 - self.margin) * last.allowed, self.rounds)
        except BaseException:  # the ranks have agreed to stop: it comes again when the run goes on
            way.apply(1.0)
            raise
        finally:
            model.reference.release()
        way.apply(alpha)
        self._alpha = alpha
        said = f"{last.increase:+.3g} nats/token, {last.allowed:g} allowed"
        rank_zero_info(
            f"text budget: step {last.step} ends between the untouched LLM and its own: alpha {alpha:g} ({said})"
        )
        return True

    @override
    def figures(self) -> dict[str, float]:
        return {} if self._alpha is None else {"alpha": self._alpha}


def largest_inside(increase: Callable[[float], float], allowed: float, rounds: int) -> float:
    """Finds by bisection the largest share in [0, 1) at which an increase is inside a budget.

    Where the increase does not rise all the way it is one that is inside, and a larger one may be too.

    Args:
        increase: Of a share; zero at 0, and more than ``allowed`` at 1.
        allowed: The budget.
        rounds: Shares to try.

    Returns:
        A share that was tried and is inside, or 0.
    """
    low, high = 0.0, 1.0
    for _ in range(rounds):
        middle = (low + high) / 2
        if increase(middle) <= allowed:
            low = middle
        else:
            high = middle
    return low

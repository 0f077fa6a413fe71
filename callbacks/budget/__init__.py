"""A budget for forgetting: how much the loss on text may rise, and what to do about it."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "BudgetAction": "budget_action",
    "ControlWeight": "control_weight",
    "RollBack": "roll_back",
    "RollBackToCheckpoint": "roll_back_to_checkpoint",
    "StopAtBudget": "stop_at_budget",
    "TextBudget": "text_budget",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

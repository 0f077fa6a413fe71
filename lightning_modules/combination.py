"""Which strategies and objectives go together, and what they need to begin; the rest is refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .objectives import Objective
    from .tuning import Tuning


def check_combination(tuning: Tuning, objectives: Sequence[Objective]) -> None:
    """Asks the strategy and each objective, after what concerns all of them.

    Args:
        tuning: What moves.
        objectives: What is asked, in their order.

    Raises:
        ValueError: With the reason.
    """
    if objectives[0].penalty:
        raise ValueError("model.objectives: the first must be over tokens (AnswerCrossEntropy), not a penalty")
    names = [objective.name for objective in objectives]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"model.objectives: two are named '{twice}'; give it once, with the sum of the weights")
    if tuning.trains_llm and not any(objective.runs_llm for objective in objectives):
        raise ValueError(
            f"model.objectives: {type(objectives[0]).__name__} does not run the LLM, which {type(tuning).__name__} "
            "would train; add AnswerCrossEntropy, or take AdaptorOnly"
        )
    tuning.check(objectives)
    for objective in objectives:
        objective.check(tuning)


def check_measured(tuning: Tuning) -> None:
    """Refuses to train while the strategy waits for a measurement of importance.

    Raises:
        RuntimeError: With what makes the measurement.
    """
    waiting = [name for name, user in tuning.importance_users().items() if user.waiting]
    if waiting:
        raise RuntimeError(
            f"model.tuning.{waiting[0]} waits for a measurement of importance: "
            "add the callback TuningImportance to the Trainer, or give a snapshot instead of a probe"
        )

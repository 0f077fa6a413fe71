"""The rule by which a plan chooses the point of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...foundation.errors import UserError
from ...foundation.run_names import stage_key

KEYS = ("metric", "mode", "within", "then")

Refuse = Callable[[str, Any, str], UserError]
"""Builds the error for a key, its value and what is allowed."""


@dataclass(frozen=True)
class Selection:
    """How an arm's point of its grid is chosen.

    Attributes:
        metric: A column of ``metrics.csv`` measured on validation questions; its last value counts.
        mode: ``max`` or ``min``.
        within: Points that are worse than the best by at most this count as equal to it.
        then: How to choose among these equals, for instance by the most text kept; None takes the best by the metric.
    """

    metric: str
    mode: str
    within: float = 0.0
    then: Selection | None = None

    @property
    def words(self) -> str:
        """The rule in words, for a table's head."""
        own = f"{self.metric} ({self.mode})"
        return own if self.then is None else f"{own}, within {self.within:g} by {self.then.words}"

    def gap(self, value: float, best: float) -> float:
        """Returns how much worse a value is than the best one."""
        return best - value if self.mode == "max" else value - best


def read_selection(given: Mapping[str, Any], refuse: Refuse, key: str = "selection") -> Selection:
    """Reads a rule.

    Args:
        given: Its mapping, of :data:`KEYS`.
        refuse: Builds the error to raise.
        key: Its location in the plan.

    Raises:
        UserError: If it contains an invalid setting.
    """
    if unknown := [name for name in given if name not in KEYS]:
        raise refuse(key, unknown[0], ", ".join(KEYS))
    metric, mode = given.get("metric"), given.get("mode", "max")
    if not isinstance(metric, str) or not metric.startswith(stage_key("val", "")):
        raise refuse(f"{key}.metric", metric, "a metric of validation, such as val/speech_accuracy")
    if mode not in ("max", "min"):
        raise refuse(f"{key}.mode", mode, "max, min")
    within, then = given.get("within"), given.get("then")
    if (within is None) != (then is None):
        raise refuse(key, dict(given), "within and then together: how close to the best, and how to choose among those")
    if within is None:
        return Selection(metric, mode)
    number = isinstance(within, int | float) and not isinstance(within, bool)
    if not number or not 0 < within < math.inf:
        raise refuse(f"{key}.within", within, "a positive number in the metric's unit, such as 0.05")
    if not isinstance(then, Mapping) or set(then) - {"metric", "mode"}:
        raise refuse(f"{key}.then", then, "a mapping with metric, mode")
    return Selection(metric, mode, float(within), read_selection(then, refuse, f"{key}.then"))

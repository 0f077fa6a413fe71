"""The weight of a remedy follows the budget."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from ...foundation.errors import UserError
from ...foundation.run_names import BUDGET_WEIGHT
from ..contract import WeighsTerms
from .budget_action import BudgetAction, Reading
from .dual_ascent import DualAscent


class ControlWeight(BudgetAction):
    """Raises the weight of an objective or penalty if too much text is lost, and lowers it if there is room.

    After each measurement the weight is multiplied by exp(gain times the error), the error being how far the increase
    is from (1 - ``margin``) of the budget, in budgets, as it will be ``ahead`` measurements from now
    (:class:`DualAscent`: equations and sources); it is not lowered while there is more than that. So the run is to end
    inside the budget with the most speech that the remedy leaves, whatever the scale of its weight. It can only do what
    the remedy can, and what the measurements that are left allow: text that was lost comes back as slowly as it went.
    It promises no end inside the budget: put ``RollBack`` after it in the list, which takes back what is still over.
    Take at least ten over a run, more steps between them than Adam's momentum lasts (ten), and a weight to begin with
    that is rather too large. Logged as ``budget/<text>/weight_<of>``.

    Args:
        of: Name of the term as it is logged: ``plain_text_kl``, ``plain_text_ce``, ``distillation``, ``l2sp``, ``ewc``,
            or one of your own; not the first of ``model.objectives``, which is what is learned.
        gain: Of the weight's logarithm; 1 makes it e times as large at an increase one budget above what is aimed at.
        ahead: Measurements that the control looks ahead.
        margin: Part of the budget that is left free.
        lowest: Smallest weight, as a factor of the weight in ``model.objectives``, with which the run begins.
        highest: Largest, likewise.
    """

    def __init__(
        self,
        of: str,
        gain: float = 1.0,
        ahead: float = 2.0,
        margin: float = 0.2,
        lowest: float = 0.01,
        highest: float = 100.0,
    ) -> None:
        for key, value, fits, allowed in (
            ("gain", gain, 0 < gain < math.inf, "positive"),
            ("ahead", ahead, 0 <= ahead < math.inf, "at least 0"),
            ("margin", margin, 0 <= margin < 1, "at least 0 and below 1"),
            ("lowest", lowest, 0 < lowest <= 1, "positive and at most 1"),
            ("highest", highest, 1 <= highest < math.inf, "at least 1"),
        ):
            if not fits:
                raise UserError(f"ControlWeight.{key}: {value} (allowed: {allowed})")
        self.of = of
        self._settings = {"gain": gain, "ahead": ahead, "margin": margin}
        self._factors = (lowest, highest)
        self._start: float | None = None
        self._weight: float | None = None
        self._error: float | None = None

    @override
    def check(self, pl_module: LightningModule) -> None:
        terms = _terms(pl_module)
        if self.of == "replay":
            raise UserError(
                "ControlWeight.of: the share of data.replay cannot follow a budget: an epoch's batches are planned "
                "before it begins, and a continued run finds its place in the plan (allowed: the objective "
                "PlainTextReplay with the same text, of: plain_text_ce)"
            )
        if self.of not in list(terms.weights)[1:]:
            rest = ", ".join(list(terms.weights)[1:]) or "none; add one, such as PlainTextDistillation"
            raise UserError(f"ControlWeight.of: model.objectives has no remedy '{self.of}' (allowed: {rest})")

    @override
    def start(self, pl_module: LightningModule) -> None:
        terms = _terms(pl_module)
        self._start = terms.weights[self.of] if self._start is None else self._start
        self._weight = self._start if self._weight is None else self._weight
        terms.set_weight(self.of, self._weight)

    @override
    def measured(self, trainer: Trainer, pl_module: LightningModule, readings: list[Reading]) -> None:
        assert self._weight is not None
        assert self._start is not None
        low, high = (factor * self._start for factor in self._factors)
        ascent = DualAscent(**self._settings, low=low, high=high)
        last = readings[-1]
        error = ascent.error(last.increase, last.allowed)
        before = ascent.error(readings[0].increase, last.allowed) if self._error is None else self._error
        self._weight, self._error = ascent.step(self._weight, error, before), error
        _terms(pl_module).set_weight(self.of, self._weight)

    @override
    def figures(self) -> dict[str, float]:
        return {} if self._weight is None else {f"{BUDGET_WEIGHT}{self.of}": self._weight}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start, "weight": self._weight, "error": self._error}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start, self._weight, self._error = state.get("start"), state.get("weight"), state.get("error")


def _terms(pl_module: LightningModule) -> WeighsTerms:
    """Returns the terms of the model's loss.

    Raises:
        UserError: If it has none whose weight can be set.
    """
    terms = getattr(pl_module, "objectives", None)
    if not isinstance(terms, WeighsTerms):
        raise UserError(f"ControlWeight needs a SpeechLLM, got {type(pl_module).__name__}")
    return terms

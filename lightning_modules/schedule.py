"""The learning-rate schedule: one of transformers' own, refused at once if it cannot work."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim.lr_scheduler import LambdaLR
from transformers import SchedulerType, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

BY_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
"""These follow a metric instead of the step: their rate is not known in advance and cannot be resumed."""
NAMES = sorted(kind.value for kind in SchedulerType if kind not in BY_METRIC)
GIVEN = {"optimizer", "num_training_steps", "last_epoch"}
"""Arguments that come from the run, not from the config."""
TRIAL_STEPS = 1_000_000
"""Length of the trial run for which a schedule is built with the model; longer than any setting in steps."""
SAMPLES = 200


class Schedule:
    """A schedule by name, stepped once per optimizer step.

    Args:
        name: One of ``NAMES``.
        warmup_ratio: Fraction of all steps over which the rate rises, 0 to 1.
        options: Further settings of the schedule (``{min_lr_rate: 0.1}``); ``num_warmup_steps`` takes the place of
            the ratio.

    Raises:
        ValueError: If the name is not known, the ratio out of range, or an option is wrong or missing.
    """

    def __init__(self, name: str, warmup_ratio: float = 0.0, options: Mapping[str, Any] | None = None) -> None:
        if name not in NAMES:
            raise ValueError(f"lr_schedule: {name!r} is none; allowed: {', '.join(NAMES)}")
        if not 0 <= warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio: {warmup_ratio} is no part of the run; allowed: 0 to 1")
        self.name = name
        self.warmup_ratio = warmup_ratio
        self.options = dict(options or {})
        allowed = self._allowed()
        if unknown := sorted(set(self.options) - set(allowed)):
            raise ValueError(
                f"lr_schedule_options: {name} has no option {unknown[0]!r}; allowed: {', '.join(allowed) or 'none'}"
            )
        self._try()

    def build(self, optimizer: torch.optim.Optimizer, steps: float) -> LambdaLR:
        """Builds the schedule of an optimizer.

        Args:
            optimizer: Whose rates it multiplies.
            steps: Optimizer steps of the whole run; infinite if only time ends it.

        Raises:
            ValueError: If the run has no end and the schedule needs one.
        """
        if math.isinf(steps) and not self.endless:
            remedy = "give trainer.max_steps (or max_epochs)"
            if self.name in ("constant_with_warmup", "inverse_sqrt"):
                remedy += " or lr_schedule_options: {num_warmup_steps: N}"
            else:
                remedy += ", or take lr_schedule: constant"
            raise ValueError(
                f"lr_schedule: {self.name} must know how many steps the run has, and it has no end; {remedy}"
            )
        options = dict(self.options)
        warmup = options.pop("num_warmup_steps", None)
        if warmup is None:
            warmup = 0 if math.isinf(steps) else round(self.warmup_ratio * steps)
        parts = warmup + sum(options.get(part) or 0 for part in ("num_stable_steps", "num_decay_steps"))
        if parts > steps:
            rank_zero_warn(f"lr_schedule: the parts of {self.name} need {parts} steps, the run has {steps:.0f}")
        made = get_scheduler(
            self.name,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=None if math.isinf(steps) else int(steps),
            scheduler_specific_kwargs=options,
        )
        assert isinstance(made, LambdaLR)
        self._check(made, SAMPLES if math.isinf(steps) else int(steps))
        return made

    @property
    def endless(self) -> bool:
        """Whether the rate of a step is independent of the total number of steps."""
        if self.name in ("constant_with_warmup", "inverse_sqrt"):
            return self.warmup_ratio == 0 or "num_warmup_steps" in self.options
        return self.name == "constant"

    def _allowed(self) -> list[str]:
        """Returns the options that the schedule's function in transformers accepts."""
        function: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(self.name)]
        return sorted(set(inspect.signature(function).parameters) - GIVEN)

    def _try(self) -> None:
        """Builds the schedule for a long run and a dummy parameter."""
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        try:
            self.build(optimizer, TRIAL_STEPS)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(
                f"lr_schedule: {self.name} does not work with lr_schedule_options {self.options}: {error} "
                f"(its options: {', '.join(self._allowed()) or 'none'})"
            ) from error

    def _check(self, made: LambdaLR, steps: int) -> None:
        """Checks the factors of a run: a schedule whose parts do not fit into it can turn negative."""
        for step in range(0, steps + 1, max(1, steps // SAMPLES)):
            factor = float(made.lr_lambdas[0](step))
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"the factor of step {step} of {steps} is {factor:g}; allowed: 0 and more")

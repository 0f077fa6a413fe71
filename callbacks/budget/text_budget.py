"""Keeps the loss on text within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from ...evaluation import Interval, Losses, LossIncrease, loss_increase
from ...foundation.errors import UserError
from ...foundation.run_names import budget_key, budget_name
from ..contract import Batch
from ..saving.checkpoint import RunCheckpoint
from ..stopping.agreed_stop import AgreedStop
from .budget_action import BudgetAction, Reading
from .passages import Passages
from .roll_back import RollBack
from .run_length import steps_of_fit


class TextBudget(Callback):
    """Measures how much the loss on text has risen since the start of training, and acts on it.

    Every ``every_n_steps`` optimizer steps and at the end the model reads the same passages; the increase is paired
    with the untouched LLM's losses on them, or with those of ``model.base`` if it is named, with a 95 % interval over
    passages. It is logged as
    ``budget/<text>/increase`` with ``…/low``, ``…/high`` and ``…/allowed``, and what the actions set beside it.

    Example::

        trainer:
          callbacks+:
            - class_path: TextBudget
              init_args:
                max_increase: 0.02
                text: plain-text/probe

    Args:
        max_increase: Largest increase of the loss, nats a token.
        text: Text that is never trained on: name of a probe (``data.probes``), of a set (``data.sets``), or what names
            a source (``plain-text/probe``, a .txt file with passages between empty lines, a manifest of questions).
        every_n_steps: Optimizer steps between two measurements.
        actions: What is done about it, in this order; the last one is to see to it that the run ends inside. Without
            the list it is ``RollBack`` alone; an empty one (``[]``) only measures.
        limit: Most passages of a set or source; a fixed choice.

    Note:
        Measuring leaves no trace: without an action that changes something, training is bit-identical to training
        without this callback. A continued run goes on as if it had not been stopped: losses of the untouched LLM,
        readings and the actions' state travel in checkpoints. An action changes weights before the last checkpoint is
        written and before the last validation, unless something else than the number of steps ends the run; put this
        callback in front of those that measure the end.
    """

    def __init__(
        self,
        max_increase: float,
        text: str = "plain-text/probe",
        every_n_steps: int = 10,
        actions: Sequence[BudgetAction] | None = None,
        limit: int | None = None,
    ) -> None:
        if not 0 < max_increase < math.inf:
            raise UserError(f"TextBudget.max_increase: {max_increase} (allowed: positive, nats a token, such as 0.02)")
        for key, value in (("every_n_steps", every_n_steps), ("limit", limit)):
            if value is not None and value < 1:
                raise UserError(f"TextBudget.{key}: {value} (allowed: at least 1)")
        self.max_increase = max_increase
        self.text = text
        self.every_n_steps = every_n_steps
        self.actions = [RollBack()] if actions is None else list(actions)
        self._passages = Passages(text, limit)
        self._untouched: Losses = {}
        self._readings: list[Reading] = []
        self._finished = -1

    def needs_whole(self) -> str | None:
        """Names an action that must meet whole weights, so that ranks cannot share them out (``FSDP2``)."""
        return next(filter(None, (action.needs_whole() for action in self.actions)), None)

    # ------------------------------------------------------------------ state

    @property
    @override
    def state_key(self) -> str:
        return f"{type(self).__qualname__}: {self.text}"  # there may be several

    @property
    def readings(self) -> list[Reading]:
        """All measurements so far, the first at the start."""
        return list(self._readings)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "untouched": {identity: list(loss) for identity, loss in self._untouched.items()},
            "readings": [[r.step, r.found.loss, r.found.before, *r.found.increase] for r in self._readings],
            "actions": [action.state_dict() for action in self.actions],
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._untouched = {identity: (total, tokens) for identity, (total, tokens) in state_dict["untouched"].items()}
        self._readings = [self._reading(row[0], row[1], row[2], Interval(*row[3:])) for row in state_dict["readings"]]
        if len(state_dict["actions"]) == len(self.actions):  # other settings begin anew
            for action, state in zip(self.actions, state_dict["actions"], strict=True):
                action.load_state_dict(state)

    # ------------------------------------------------------------------ hooks

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._untouched, self._readings, self._finished = {}, [], -1  # of a fit before; a checkpoint's come after this
        for action in self.actions:
            action.load_state_dict({})
        tuning: Any = getattr(pl_module, "tuning", None)
        if tuning is None or not hasattr(pl_module, "untouched_losses"):
            raise UserError(f"TextBudget needs a SpeechLLM, got {type(pl_module).__name__}")
        if not tuning.changes_text:
            raise UserError(
                f"TextBudget: {type(tuning).__name__} cannot change what the LLM does with text; leave it out"
            )
        self._passages.check(trainer.datamodule)  # type: ignore[attr-defined]
        self._check_apart(trainer, pl_module)
        for action in self.actions:
            action.check(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        other = step > 0 or getattr(pl_module, "base_source", None) is not None
        if not self._untouched:
            self._untouched = self._passages.losses(trainer, pl_module, untouched=other)
            if other:
                pl_module.reference.release()  # type: ignore[operator, union-attr]
        for action in self.actions:
            action.start(pl_module)
            if step > 0:
                action.resumed(trainer, self.max_increase)
        if not self._readings:
            now = self._passages.losses(trainer, pl_module) if other and step == 0 else self._untouched
            self._note(trainer, self._reading(0, *loss_increase(self._untouched, now)))
        if self._is_due(step):  # when the run was stopped
            self._measure(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        with suppress(AgreedStop):  # it comes again in the next hook, when this step has been logged
            due = self._is_due(trainer.global_step)
            if due:
                self._measure(trainer, pl_module)
            least = (trainer.min_steps or 0, trainer.min_epochs or 0)  # a stop waits for both
            stops = trainer.should_stop and trainer.global_step >= least[0] and trainer.current_epoch >= least[1]
            if trainer.global_step >= steps_of_fit(trainer) or (due and stops):
                self._finish(trainer, pl_module)  # before the last checkpoint is written

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._finish(trainer, pl_module):  # something else has ended the run
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, RunCheckpoint):
                    callback.save_anew()

    # ------------------------------------------------------------------ measuring

    def _check_apart(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a second budget whose figures would have the same names, and text that training reads.

        Raises:
            UserError: With what is allowed.
        """
        budgets: list[TextBudget] = [c for c in trainer.callbacks if isinstance(c, TextBudget)]  # type: ignore[attr-defined]
        texts = [budget.text for budget in budgets if budget_name(budget.text) == budget_name(self.text)]
        if len(texts) > 1:
            allowed = "files of different names, or probes of data.probes, which have names of their own"
            key = budget_key(budget_name(self.text), "increase")
            raise UserError(f"TextBudget.text: {' and '.join(texts)} would be logged as one {key} (allowed: {allowed})")
        for term in getattr(pl_module, "objectives", ()):
            if getattr(term, "text", None) in self._passages.names(trainer.datamodule):  # type: ignore[attr-defined]
                reader = type(term).__name__
                raise UserError(f"TextBudget.text: {self.text} is the text that {reader} trains on (allowed: another)")

    def _is_due(self, step: int) -> bool:
        return step > 0 and step % self.every_n_steps == 0 and step > self._readings[-1].step

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the weights as they are and lets the actions act on it."""
        reading = self._read(trainer, pl_module)
        for action in self.actions:
            action.measured(trainer, pl_module, [*self._readings, reading])
        self._note(trainer, reading)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Lets the actions act on the end of the run, once; tells whether they changed the weights."""
        if self._finished == trainer.global_step:
            return False
        if self._readings[-1].step != trainer.global_step:
            self._note(trainer, self._read(trainer, pl_module))
        changed = False
        for action in self.actions:
            if action.finish(trainer, pl_module, self._readings[-1], lambda: self._read(trainer, pl_module)):
                self._note(trainer, self._read(trainer, pl_module))
                changed = True
        self._finished = trainer.global_step
        if self.actions and self._readings[-1].over:
            ends = f"the run ends at step {trainer.global_step} over its budget"
            rank_zero_warn(f"text budget: {ends}; RollBack as the last of TextBudget.actions takes back what is over")
        return changed

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> Reading:
        found = loss_increase(self._untouched, self._passages.losses(trainer, pl_module))
        return self._reading(trainer.global_step, *found)

    def _reading(self, step: int, loss: float, before: float, increase: Interval) -> Reading:
        return Reading(step, LossIncrease(loss, before, increase), self.max_increase, self.every_n_steps)

    def _note(self, trainer: Trainer, reading: Reading) -> None:
        self._readings.append(reading)
        estimate, low, high = reading.found.increase
        values = {
            "loss": reading.found.loss,
            "increase": estimate,
            "low": low,
            "high": high,
            "allowed": reading.allowed,
        }
        for action in self.actions:
            values |= action.figures()
        if reading.step < trainer.global_step:
            return  # of the untouched LLM, in a run that had begun without this callback
        text = budget_name(self.text)
        for logger in trainer.loggers:
            logger.log_metrics({budget_key(text, name): value for name, value in values.items()}, step=reading.step)
        shown = f"{estimate:+.3g} [{low:+.3g}, {high:+.3g}] nats/token of {reading.allowed:g} allowed"
        more = "".join(f", {name} {value:.3g}" for action in self.actions for name, value in action.figures().items())
        rank_zero_info(f"text budget ({text}) at step {reading.step}: {shown}{more}")

"""Whether the weights at hand may be saved: not changing at this moment, and not in doubt."""

from __future__ import annotations

from lightning.pytorch import Trainer

from ..contract import DoubtsWeights


class StepWindow:
    """The time from before an optimizer moves the first weight until counters and schedules have counted the step.

    An exception may come up anywhere in it: torch raises in the main thread when a data worker was killed, Ctrl-C and
    errors of a device come when they come. The weights are then neither those of one step nor of the next.
    """

    def __init__(self) -> None:
        self._before: list[int] | None = None

    def enter(self, trainer: Trainer) -> None:
        """Notes the counters, before the optimizer takes its step."""
        self._before = _counters(trainer)

    def is_open(self, trainer: Trainer) -> bool:
        """Returns whether a step was begun that is not counted yet."""
        if self._before is None:
            return False
        return any(now <= before for now, before in zip(_counters(trainer), self._before, strict=True))


def _counters(trainer: Trainer) -> list[int]:
    """Returns what is counted up once a step: the steps, and the schedules that go by steps."""
    by_step = [c for c in trainer.lr_scheduler_configs if c.interval == "step" and c.frequency == 1]
    schedules = [config.scheduler for config in by_step if not config.reduce_on_plateau]
    return [trainer.global_step, *(schedule.last_epoch for schedule in schedules)]


def in_doubt(trainer: Trainer) -> bool:
    """Returns whether the weights at hand may be worthless: the previous checkpoint is then kept."""
    model = trainer.lightning_module
    return isinstance(model, DoubtsWeights) and model.in_doubt

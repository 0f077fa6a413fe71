"""A plan of a run: memory, time and disk before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning.pytorch import Callback

from ..datamodules import SpeechTextData
from ..importance.sites import find_sites
from ..lightning_modules import SpeechLLM
from .advice import advice
from .disk import Disk, planned_disk
from .largest import largest_budget
from .machine import Machine
from .moments import Moment, Rehearsed
from .pretended_ranks import pretended_ranks
from .question import Question
from .rehearsal import Rehearsal
from .stepping import TrainerSettings


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        examples: Of training, in one modality each; None if it is not said.
        epochs: How many; None where steps end the run.
        every: The Trainer's ``val_check_interval``: a part of an epoch, or a number of batches.
        every_epochs: The Trainer's ``check_val_every_n_epoch``.
    """

    examples: int | None = None
    epochs: int | None = None
    every: float | int = 1.0
    every_epochs: int = 1

    def validations(self, batches: int | None) -> int | None:
        """Counts the validations of a run.

        Args:
            batches: Of an epoch on one rank; None if that is not known.
        """
        if self.epochs is None or (isinstance(self.every, int) and batches is None):
            return None
        an_epoch = int((batches or 0) / self.every) if isinstance(self.every, int) else int(1 / self.every)
        return self.epochs // self.every_epochs * an_epoch


@dataclass(frozen=True)
class Pace:
    """Operations and time.

    Attributes:
        step_flops: Of an optimizer step of one rank.
        step_seconds: Of it, at the machine's utilisation.
        step_rows: Rows of a step, all ranks together.
        epoch_steps: Optimizer steps of an epoch; None if the number of examples is not known.
        epoch_seconds: Time of them, without validation and measurements.
    """

    step_flops: int
    step_seconds: float
    step_rows: int
    epoch_steps: int | None
    epoch_seconds: float | None


@dataclass
class Plan:
    """What a run takes.

    Attributes:
        machine: That it is planned for.
        question: What all rows are taken to be.
        settings: Of the Trainer.
        rehearsed: Moments of highest memory, and sizes.
        budget: Positions of a batch, of the config.
        largest: The largest batch of the first kind that fits; None if not one row does, or memory is not judged.
        pace: Operations and time.
        disk: What it writes.
        advice: What to change where it does not fit.
    """

    machine: Machine
    question: Question
    settings: TrainerSettings
    rehearsed: Rehearsed
    budget: int
    largest: Moment | None
    pace: Pace
    disk: Disk
    advice: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool | None:
        """Whether the highest moment fits into what is usable of a GPU; None if memory is not judged."""
        usable = self.machine.usable
        return None if usable is None else self.rehearsed.highest.total <= usable

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures as JSON holds them; memory in bytes, time in seconds."""
        moments = [{**asdict(moment), "total": moment.total} for moment in self.rehearsed.moments]
        return {
            "machine": {**asdict(self.machine), "ranks": self.machine.ranks, "usable": self.machine.usable},
            "question": asdict(self.question),
            "trainer": asdict(self.settings),
            "parameters": {
                name: {"trained": trained, "all": every}
                for name, (trained, every) in self.rehearsed.sizes.parameters.items()
            },
            "moments": moments,
            "peak": self.rehearsed.highest.total,
            "fits": self.fits,
            "tokens_per_batch": self.budget,
            "largest": None if self.largest is None else {**asdict(self.largest), "total": self.largest.total},
            "pace": asdict(self.pace),
            "disk": {**asdict(self.disk), "most": self.disk.most},
            "left_out": self.rehearsed.left_out,
            "advice": self.advice,
        }


def make_plan(
    model: SpeechLLM,
    data: SpeechTextData,
    callbacks: Sequence[Callback],
    settings: TrainerSettings,
    machine: Machine,
    question: Question,
    length: Length,
) -> Plan:
    """Rehearses a fit on shapes alone and adds up what it takes.

    Args:
        model: As its config describes it; nothing is loaded yet, and it is of no use afterwards.
        data: The same.
        callbacks: Of the fit.
        settings: Of the Trainer.
        machine: That the run is for.
        question: What all rows are taken to be.
        length: Of the run.

    Raises:
        UserError: If a step cannot be followed without data, or FSDP2 cannot divide the model among the ranks.
        BadExampleError: If one row is over the token budget.
    """
    with pretended_ranks(machine.ranks, settings.replicas):
        rehearsal = Rehearsal(model, data, callbacks, settings, question, machine.ranks)
        rehearsed = rehearsal.run()
        batches = rehearsal.batches
        kind = batches.kinds()[0]
        largest = None
        if machine.usable is not None:
            room, budget = machine.usable, batches.options[0]
            largest = largest_budget(lambda b: rehearsal.training(kind, b), budget, batches.length(kind), room)
    pace = _pace(rehearsed.moments[0], settings, machine, length)
    validations = length.validations(None if pace.epoch_steps is None else pace.epoch_steps * settings.accumulate)
    plan = Plan(
        machine,
        question,
        settings,
        rehearsed,
        batches.options[0],
        largest,
        pace,
        planned_disk(rehearsed.sizes, find_sites(model.llm), data, callbacks, validations),
    )
    if machine.usable is not None and not plan.fits:
        too_high = [moment for moment in rehearsed.moments if moment.total > machine.usable]
        plan.advice = advice(model, too_high, largest, plan.budget, settings.replicas is not None)
    return plan


def _pace(batch: Moment, settings: TrainerSettings, machine: Machine, length: Length) -> Pace:
    flops = batch.flops * settings.accumulate
    seconds, rows = machine.seconds(flops), batch.rows * settings.accumulate * machine.ranks
    steps = None if length.examples is None else math.ceil(length.examples / rows)
    return Pace(flops, seconds, rows, steps, None if steps is None else steps * seconds)

"""How many optimizer steps a fit takes."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler


def steps_of_fit(trainer: Trainer) -> float:
    """Counts the optimizer steps after which a fit ends by itself; infinite if it has no end.

    The Trainer's own estimate takes the present epoch's accumulation for that of all epochs: with a factor that rises
    it falls below the steps that are yet to come.

    Args:
        trainer: In a fit.
    """
    estimated = float(trainer.estimated_stepping_batches)
    schedules = [callback for callback in trainer.callbacks if isinstance(callback, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if not schedules or epochs is None or epochs < 0 or math.isinf(batches):
        return estimated
    factors = (schedules[0].get_accumulate_grad_batches(epoch) for epoch in range(epochs))
    steps = sum(math.ceil(batches / factor) for factor in factors)
    return float(steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))

"""What to change in a config whose run does not fit."""

from __future__ import annotations

from ..lightning_modules import LoRA, SpeechLLM
from .meter import ACTIVATIONS, GRADIENTS, OPTIMIZER, STRENGTHS, TEACHER, WEIGHTS
from .moments import Moment, Rehearsed

LARGE = 0.1  # of the whole: what is smaller is not worth a change


def advice(model: SpeechLLM, rehearsed: Rehearsed, largest: Moment | None, budget: int) -> list[str]:
    """Gives changes that lower the highest moment, those that change least of the training first.

    Args:
        model: Of the plan.
        rehearsed: Its moments.
        largest: The largest batch that fits, or None.
        budget: Positions of a batch, of the config.
    """
    highest = rehearsed.highest
    parts = {label for label, size in highest.parts.items() if size > LARGE * highest.total}
    told: list[str] = []
    training = highest in rehearsed.moments[:-1] and highest.flops > 0
    if ACTIVATIONS in parts and training and not model.gradient_checkpointing:
        told.append("model.gradient_checkpointing: true (a third more time)")
    if ACTIVATIONS in parts and training and largest is not None and largest.positions < budget:
        told.append(
            f"data.tokens_per_batch: {largest.positions} (the largest that fits), and as much more "
            "trainer.accumulate_grad_batches for the same step"
        )
    if highest.name.startswith("an evaluation") or highest.name.startswith("writing"):
        told.append("data.eval_tokens_per_batch: less than four times data.tokens_per_batch")
    if highest.name.startswith("importance"):
        told.append("a smaller batch_size of the probes in data.probes; top_fraction: null of ImportanceTracker")
    if TEACHER in parts and STRENGTHS not in parts:
        told.append("a CachedTeacher in the place of the live one: the untouched copy goes to disk")
    if {TEACHER, STRENGTHS} <= parts:
        told.append("no EWC or L2SP: each keeps an untouched copy of the LLM, EWC a Fisher map too")
    if {WEIGHTS, GRADIENTS, OPTIMIZER} & parts and not isinstance(model.tuning, LoRA):
        told.append("trainer.precision: bf16-true (half of all; small updates are rounded away: compare before use)")
        told.append("configs/tuning/lora.yaml: no gradients and optimizer state of the LLM's own weights")
    return told or ["a GPU with more memory, or a smaller LLM"]

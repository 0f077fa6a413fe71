"""What to change in a config whose run does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from ..lightning_modules import LoRA, SpeechLLM
from .meter import ACTIVATIONS, GRADIENTS, OPTIMIZER, STRENGTHS, TEACHER, WEIGHTS
from .moments import Moment

LARGE = 0.1  # of the whole: what is smaller is not worth a change


def advice(
    model: SpeechLLM, too_high: Sequence[Moment], largest: Moment | None, budget: int, divided: bool
) -> list[str]:
    """Returns changes that lower every moment that does not fit, the least invasive first.

    Args:
        model: Of the plan.
        too_high: The moments that do not fit.
        largest: The largest batch that fits, or None.
        budget: Positions of a batch, of the config.
        divided: Whether ranks share the weights out already.
    """
    told: list[str] = []
    training = [moment for moment in too_high if moment.name.startswith("a batch")]
    if ACTIVATIONS in _large(training):
        if not model.gradient_checkpointing:
            told.append("model.gradient_checkpointing: true (a third more time)")
        if largest is not None and largest.positions < budget:
            told.append(
                f"data.tokens_per_batch: {largest.positions} (the largest that fits), and as much more "
                "trainer.accumulate_grad_batches for the same step"
            )
    if any(moment.name.startswith(("an evaluation", "writing")) for moment in too_high):
        told.append("data.eval_tokens_per_batch: less than four times data.tokens_per_batch")
    if any(moment.name.startswith("importance") for moment in too_high):
        told.append("a smaller batch_size of the probes in data.probes; top_fraction: null of ImportanceTracker")
    parts = _large(too_high)
    if TEACHER in parts and STRENGTHS not in parts:
        told.append("a CachedTeacher in the place of the live one: the untouched copy goes to disk")
    if {TEACHER, STRENGTHS} <= parts:
        told.append("no EWC or L2SP: each keeps an untouched copy of the LLM, EWC a Fisher map too")
    if {WEIGHTS, GRADIENTS, OPTIMIZER} & parts and not isinstance(model.tuning, LoRA):
        if not divided:
            told.append("configs/trainer/fsdp2.yaml on several GPUs: each holds its part of all of it")
        told.append("trainer.precision: bf16-true (half of all; small updates are rounded away: compare before use)")
        told.append("configs/tuning/lora.yaml: no gradients and optimizer state of the LLM's own weights")
    return told or ["a GPU with more memory, or a smaller LLM"]


def _large(moments: Sequence[Moment]) -> set[str]:
    """Returns the labels of the parts that are large enough in some moment to be worth a change."""
    return {label for moment in moments for label, size in moment.parts.items() if size > LARGE * moment.total}

"""What training changed in a loaded model, for interpolation, reverted matrices and exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .changes import Change, DenseChange, LoRAChange
from .lora_layers import merge_lora

if TYPE_CHECKING:
    from ..speech_llm import SpeechLLM


def change_of(model: SpeechLLM) -> Change:
    """Returns what training changed in a model's LLM; LoRA is merged in place where possible.

    An LLM in half precision is converted to float32 first: rounding would lose most of what LoRA or a share of a change
    adds to the weights.

    Args:
        model: With its weights loaded.
    """
    if not model.tuning.mergeable:
        return LoRAChange(model.llm)
    base = model.tuning.grow(model.reference.copy())  # in the type that training started with
    model.llm.to(torch.promote_types(model.llm.dtype, torch.float32))
    merge_lora(model.llm)
    return DenseChange(model.llm, dict(base.named_parameters()))

"""What training changed in a model that was loaded: for interpolation, reverted matrices and exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .changes import Change, DenseChange, LoRAChange
from .lora_layers import merge_lora

if TYPE_CHECKING:
    from ..speech_llm import SpeechLLM


def change_of(model: SpeechLLM) -> Change:
    """Returns what training changed in a model's LLM; LoRA that can be merged is, in place.

    An LLM in half precision is converted to float32 for it: rounded again, weights would lose most of what LoRA
    or a share of a change adds to them.

    Args:
        model: With its weights loaded.
    """
    if not model.tuning.mergeable:
        return LoRAChange(model.llm)
    base = model.tuning.grow(model.reference.copy())  # in the type in which training began
    model.llm.to(torch.promote_types(model.llm.dtype, torch.float32))
    merge_lora(model.llm)
    return DenseChange(model.llm, dict(base.named_parameters()))

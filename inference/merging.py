"""The tuned weights of a model as plain matrices."""

from __future__ import annotations

from typing import Any

from ..foundation.errors import UserError
from .loaded_model import LoadedModel


def merge(model: LoadedModel) -> Any:
    """Folds LoRA into the LLM's weights, in place; the names of its parameters are then the base model's.

    Returns:
        The LLM.

    Raises:
        UserError: If its adapters act on some positions only: no matrix is the tuned one.
    """
    from ..lightning_modules.llm.lora_layers import merge_lora

    if model.speech_llm is not None and not model.speech_llm.tuning.mergeable:
        raise UserError(
            f"{model.origin.name} has adapters that act on some positions only: there are no tuned weights to "
            "compare; allowed: a run whose tuning can be merged"
        )
    merge_lora(model.llm)
    return model.llm

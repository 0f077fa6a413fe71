"""LoRA layers (peft) inside an LLM: finding them and merging them into the weights."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def lora_layers(llm: nn.Module) -> dict[str, Any]:
    """Maps each module with LoRA, by its name in the untouched LLM, to peft's layer around it."""
    return {name: module for name, module in llm.named_modules() if isinstance(module, BaseTunerLayer)}


@torch.no_grad()
def merge_lora(llm: nn.Module) -> int:
    """Merges all LoRA layers into the weights and removes them, in place.

    Args:
        llm: A causal LM into whose modules peft has put LoRA; it keeps its class and becomes a plain one.

    Returns:
        How many modules had LoRA.

    Raises:
        ValueError: If a merged weight is not finite.
    """
    for layer in lora_layers(llm).values():
        layer.merge(safe_merge=True)
    return drop_lora(llm)


def merge_sound_lora(encoder: nn.Module, adaptor: nn.Module) -> None:
    """Folds LoRA on what hears into its weights, in place: there is no text on its path that a merge could change.

    Half precision is converted to float32 for it. What had LoRA counts as trained: an export writes it.

    Args:
        encoder: With or without LoRA.
        adaptor: With or without LoRA.
    """
    for part in (encoder, adaptor):
        if lora_layers(part):
            if next(part.parameters()).dtype.itemsize < 4:
                part.float()
            merge_lora(part)
            part.requires_grad_(True)


def drop_lora(llm: nn.Module) -> int:
    """Removes all LoRA layers in place, leaving the underlying weights unchanged.

    Returns:
        How many modules had LoRA.
    """
    layers = lora_layers(llm)
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(llm.get_submodule(parent), child, layer.get_base_layer())
    vars(llm).pop("peft_config", None)  # peft's mark of a model with LoRA
    return len(layers)


def without_lora(llm: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the state dict of the LLM without its LoRA layers."""
    layers = lora_layers(llm)
    own = {f"{name}." for name in layers}
    found = {}
    for name, tensor in llm.state_dict().items():
        layer = next((prefix for prefix in own if name.startswith(prefix)), None)
        if layer is None:
            found[name] = tensor
        elif name.startswith(f"{layer}base_layer."):
            found[name.replace(f"{layer}base_layer.", layer, 1)] = tensor
    return found

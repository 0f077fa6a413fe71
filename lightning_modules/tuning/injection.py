"""Inserts peft's LoRA layers into a language model, and switches them off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from ...foundation.decoder import decoder_layers
from ..llm.lora_layers import lora_layers

TRAINED = "default"
"""peft's name for the trainable A and B."""


FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules of torch that compute with the weights of their dense layers, without calling these: LoRA would not act."""


def linears(llm: nn.Module, targets: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Finds the dense layers of the decoder blocks, by full name: seven per block in Llama, never the head.

    Args:
        llm: A causal LM of any family.
        targets: Last parts of the wanted names; ``None`` takes all.

    Raises:
        ValueError: If a target does not occur.
    """
    inside = {id(module) for module in decoder_layers(llm).modules()}
    found = {name: module for name, module in _dense(llm).items() if id(module) in inside}
    return _named(found, targets, "the LLM's decoder layers")


def linears_that_hear(part: nn.Module, role: str, targets: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Finds the dense layers of an encoder or adaptor, by their full names.

    Args:
        part: The encoder or adaptor.
        role: What it is to the model, for messages.
        targets: Last parts of the names that are wanted; ``None`` takes all.

    Raises:
        ValueError: If a target does not occur, or there is none at all.
    """
    fused = {id(inner) for module in part.modules() if isinstance(module, FUSED) for inner in module.modules()}
    found = {name: module for name, module in _dense(part).items() if id(module) not in fused}
    if not found:
        raise ValueError(f"LoRA: the {role} has no dense layer that LoRA can be put on; leave '{role}' out of parts")
    return _named(found, targets, f"the {role}")


def _dense(module: nn.Module) -> dict[str, nn.Module]:
    return {name: inner for name, inner in module.named_modules() if isinstance(inner, nn.Linear | Conv1D)}


def _named(found: dict[str, nn.Module], targets: Sequence[str] | None, where: str) -> dict[str, nn.Module]:
    if targets is None:
        return found
    kinds = {name.rsplit(".", 1)[-1] for name in found}
    if unknown := [target for target in targets if target not in kinds]:
        raise ValueError(f"LoRA: targets {unknown} are not in {where} (allowed: {sorted(kinds)})")
    return {name: module for name, module in found.items() if name.rsplit(".", 1)[-1] in targets}


def inject(llm: nn.Module, config: LoraConfig) -> None:
    """Wraps each target of the config in a LoRA layer; the LLM keeps its class, and only A and B train.

    Raises:
        RuntimeError: If peft wrapped other layers than those named.
    """
    wanted = set(config.target_modules or ())
    inject_adapter_in_model(config, llm, TRAINED)
    if (found := set(lora_layers(llm))) != wanted:
        raise RuntimeError(f"LoRA: peft wrapped {len(found)} layers of {len(wanted)}: {sorted(found ^ wanted)[:3]}")


def reshape(layers: Mapping[str, Any], ranks: Mapping[str, int]) -> None:
    """Gives LoRA layers another rank at their current scale; the values are drawn as peft draws them.

    Args:
        layers: peft's layers by name.
        ranks: Name -> rank, for those that may have to change.
    """
    for name, rank in ranks.items():
        layer = layers[name]
        for adapter, down in layer.lora_A.items():
            up = layer.lora_B[adapter]
            if layer.r[adapter] == rank:
                continue
            trains = down.weight.requires_grad
            down.out_features = up.in_features = layer.r[adapter] = rank
            for part, shape in ((down, (rank, layer.in_features)), (up, (layer.out_features, rank))):
                part.weight = nn.Parameter(part.weight.new_zeros(shape), requires_grad=trains)
            if trains:  # drawn in float32, whatever the precision
                drawn = down.weight.detach().to(torch.float32, copy=True)
                down.weight.data.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5)))


@contextmanager
def switched_off(llm: nn.Module) -> Iterator[None]:
    """Switches LoRA off within the context, which gives the original LLM bit for bit."""
    layers = lora_layers(llm).values()
    before = [layer.disable_adapters for layer in layers]
    switch(layers, off=True)
    try:
        yield
    finally:
        for layer, off in zip(layers, before, strict=True):
            switch([layer], off)


def switch(layers: Iterable[Any], off: bool) -> None:
    """Switches LoRA layers off or on.

    It sets peft's flag directly: ``enable_adapters`` also flips ``requires_grad``, which must not change during a run.
    """
    for layer in layers:
        layer._disable_adapters = off

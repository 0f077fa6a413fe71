"""Finding the decoder layers of any Hugging Face causal LM."""

from __future__ import annotations

from torch import nn


def decoder_layers(llm: nn.Module) -> nn.ModuleList:
    """The longest list of equal blocks in the model: its decoder layers, whatever the family calls them.

    Raises:
        ValueError: If the model holds no list of blocks of one class.
    """
    lists = [
        module
        for module in llm.modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(block) for block in module}) == 1
    ]
    if not lists:
        raise ValueError(f"no decoder layers found in {type(llm).__name__}: it holds no list of equal blocks")
    return max(lists, key=lambda blocks: (sum(p.numel() for p in blocks.parameters()), len(blocks)))

"""Finding the decoder layers of any Hugging Face causal LM."""

from __future__ import annotations

from torch import nn

from ..importance.blocks import find_blocks


def decoder_layers(llm: nn.Module) -> nn.ModuleList:
    """The list of blocks that holds most of the model's weights: its decoder layers, whatever the family calls them.

    The blocks may be of several classes (hybrids of attention and state space layers), and the list is the one whose
    layers are measured: rates, masks and adapters by layer mean the same layers as the importance.

    Raises:
        ValueError: If the model holds no list of blocks with dense layers.
    """
    try:
        return find_blocks(llm)[1]
    except ValueError as error:
        raise ValueError(f"no decoder layers found in {type(llm).__name__}: {error}") from error

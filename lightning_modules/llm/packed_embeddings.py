"""Embeddings beside those of the first layer (Gemma 4's, one a layer), packed with them into one tensor.

Whoever cuts, pads, copies or differentiates ``inputs_embeds`` so treats both alike, and needs to know of neither.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "per_layer_inputs"
"""What transformers calls them: (B, T, layers, width)."""


def width_beside(llm: Any) -> int:
    """Gives the width of all embeddings beside those of the first layer; 0 of an LLM that takes none."""
    width = getattr(llm.config, "hidden_size_per_layer_input", None) or 0
    return int(width * llm.config.num_hidden_layers)


def accept_packed(llm: nn.Module) -> None:
    """Lets an LLM take packed embeddings as ``inputs_embeds``; others it takes as before.

    Args:
        llm: A causal LM of transformers.
    """
    beside = width_beside(llm)
    hidden: int = llm.config.hidden_size  # type: ignore[assignment, union-attr]
    layers: int = llm.config.num_hidden_layers  # type: ignore[assignment, union-attr]

    def unpack(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        packed = kwargs.get("inputs_embeds")
        if packed is None or packed.shape[-1] != hidden + beside:
            return None
        inner = packed[..., hidden:].unflatten(-1, (layers, -1))
        return args, {**kwargs, "inputs_embeds": packed[..., :hidden], NAME: inner}

    if beside:
        llm.register_forward_pre_hook(unpack, with_kwargs=True)


def pack(embeds: Tensor, beside: Tensor | None) -> Tensor:
    """Packs embeddings (B, T, H) with those beside them (B, T, layers, width), if there are any."""
    return embeds if beside is None else torch.cat([embeds, beside.flatten(2).to(embeds.dtype)], dim=-1)


def text_embeddings(llm: Any, input_ids: Tensor) -> Tensor:
    """Gives the embeddings of text (B, T, H), packed where an LLM takes more than those of its first layer.

    Args:
        llm: A causal LM.
        input_ids: (B, T).
    """
    embeds = llm.get_input_embeddings()(input_ids)
    beside = llm.base_model.get_per_layer_inputs(input_ids, embeds) if width_beside(llm) else None
    return pack(embeds, beside)

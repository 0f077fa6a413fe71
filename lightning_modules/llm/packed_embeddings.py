"""Embeddings beside those of the first layer (Gemma 4's, one a layer), packed with them into one tensor.

Whoever cuts, pads, copies or differentiates ``inputs_embeds`` so treats both alike, and needs to know of neither.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedConfig

NAME = "per_layer_inputs"
"""What transformers calls them: (B, T, layers, width)."""
_MARK = "takes_packed_embeddings"
"""Attribute of an LLM that :func:`accept_packed` has prepared."""


def width_beside(llm: Any) -> int:
    """Returns the width of all embeddings beside those of the first layer; 0 of an LLM that takes none."""
    width = getattr(llm.config, "hidden_size_per_layer_input", None) or 0
    return int(width * llm.config.num_hidden_layers)


def needs_tokens(config: PreTrainedConfig) -> bool:
    """Tells whether an LLM finds its tokens again by their embeddings (Gemma 4): it takes nothing else in their place.

    Args:
        config: Of a text LLM, or of a model around one.
    """
    text = config.get_text_config(decoder=True)
    kind = MODEL_MAPPING.get(type(text), None)
    beside = getattr(kind, "get_per_layer_inputs", None)
    wide = getattr(text, "hidden_size_per_layer_input", None)
    return bool(wide) and beside is not None and "inputs_embeds" in signature(beside).parameters


def accept_packed(llm: nn.Module) -> None:
    """Lets an LLM take packed embeddings as ``inputs_embeds``; others it takes as before. A second call does nothing.

    Args:
        llm: A causal LM of transformers.
    """
    if takes_packed(llm):
        return
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
        setattr(llm, _MARK, True)


def takes_packed(llm: Any) -> bool:
    """Tells whether an LLM needs embeddings at other layers, and takes them packed."""
    return getattr(llm, _MARK, False) is True


def pack(embeds: Tensor, beside: Tensor | None) -> Tensor:
    """Packs embeddings (B, T, H) with those beside them (B, T, layers, width), if there are any."""
    return embeds if beside is None else torch.cat([embeds, beside.flatten(2).to(embeds.dtype)], dim=-1)


def text_embeddings(llm: Any, input_ids: Tensor) -> Tensor:
    """Returns the embeddings of text (B, T, H), packed for an LLM that :func:`accept_packed` has prepared.

    Args:
        llm: A causal LM.
        input_ids: (B, T).
    """
    embeds = llm.get_input_embeddings()(input_ids)
    return pack(embeds, llm.base_model.get_per_layer_inputs(input_ids) if takes_packed(llm) else None)

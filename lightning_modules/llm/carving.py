"""The text LLM inside an audio LLM, taken out without a copy of its weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from .lora_layers import drop_lora
from .packed_embeddings import accept_packed

TWINS = {"qwen2_5_omni_text": "qwen2", "qwen3_omni_moe_text": "qwen3_moe", "phi4_multimodal": "phi3"}
"""Kinds of decoder without a causal LM of their own -> the text LLM of the same computation on text.

The Omni decoders turn queries and keys by three positions, which are equal on text and sound: one position, then.
"""
_STREAMS = "it adds up the embeddings of several streams of sound at each position, so that it has no text of its own"
REFUSED = dict.fromkeys(("moshi", "csm", "higgs_audio_v2", "kyutai_speech_to_text"), _STREAMS)
"""Kinds of audio LLM that hold no text LLM -> why."""
_ROPE_OF_PICTURES = ("mrope_section", "mrope_interleaved", "interleaved")


def carve(whole: nn.Module) -> Any:
    """Takes the text LLM out of an audio LLM: a causal LM of the class, and with the parameter names, of a text LLM.

    It shares every parameter with the audio LLM: what is trained or edited in one is so in the other. On text both
    compute the same, but for a scale of the logits that the audio LLM leaves out (Granite's ``logits_scaling``).
    LoRA of the audio LLM's own, which acts on sound alone (Granite Speech), is taken out of both; who wants to train it
    takes it first (:func:`take_own_lora`).

    Args:
        whole: An audio LLM of transformers, or any module that holds a causal LM as a part.

    Raises:
        ValueError: If it holds no text LLM that transformers has a class for.
    """
    llm = _inner(whole) or _assembled(whole)
    if drop_lora(llm):
        llm.requires_grad_(True)  # peft had frozen what its LoRA was on
    if (settings := getattr(whole, "generation_config", None)) is not None:
        llm.generation_config = deepcopy(settings)
    accept_packed(llm)
    return llm.train(whole.training)


def _inner(whole: nn.Module) -> Any:
    """Returns the largest causal LM that is a part of the model as it is, if there is one."""
    values: Any = MODEL_FOR_CAUSAL_LM_MAPPING.values()  # transformers' annotation is of the mapping's names
    kinds = tuple({kind for kind in values if isinstance(kind, type)})
    parts = [part for part in whole.modules() if part is not whole and isinstance(part, kinds)]
    return max(parts, key=lambda part: sum(p.numel() for p in part.parameters()), default=None)


def _assembled(whole: Any) -> Any:
    """Puts decoder and head into an empty causal LM of the decoder's configuration."""
    config = getattr(whole, "config", None)
    kind = getattr(config, "model_type", type(whole).__name__)
    if kind in REFUSED:
        raise ValueError(f"no text LLM can be taken out of {kind}: {REFUSED[kind]}")
    if not isinstance(whole, PreTrainedModel):
        raise ValueError(f"no text LLM can be taken out of {kind}: it holds no causal LM of transformers")
    text, decoder, head = whole.config.get_text_config(decoder=True), whole.get_decoder(), whole.get_output_embeddings()
    twin = TWINS.get(text.model_type)
    if (twin is None and type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING) or head is None:
        raise ValueError(
            f"no text LLM can be taken out of {kind}: transformers has no causal LM of its decoder, {text.model_type}"
        )
    config = deepcopy(text) if twin is None else _twin_config(text, twin)
    # The top configuration says what is tied; that of the text need not agree with it (GLM-ASR, Granite Speech).
    config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
    cls: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    config.architectures = [cls.__name__]
    with torch.device("meta"):
        llm = cls(config)
    if twin is not None:
        _share(llm.base_model, decoder, kind)
    elif type(llm.base_model) is type(decoder):
        setattr(llm, llm.base_model_prefix, decoder)
    else:
        raise ValueError(
            f"no text LLM can be taken out of {kind}: its decoder is a {type(decoder).__name__}, and that of "
            f"{cls.__name__} a {type(llm.base_model).__name__}"
        )
    llm.set_output_embeddings(head)
    return llm


def _twin_config(text: Any, twin: str) -> Any:
    """Returns the twin's configuration with the settings that both know."""
    kind = CONFIG_MAPPING[twin]
    given, empty = text.to_dict(), kind()
    known = {*empty.to_dict(), *empty.attribute_map} - {"model_type", "architectures", "transformers_version"}
    settings = {name: value for name, value in given.items() if name in known}
    rope = settings.get("rope_parameters")
    if isinstance(rope, dict) and "mrope_section" in rope:
        plain = {name: value for name, value in rope.items() if name not in _ROPE_OF_PICTURES}
        settings["rope_parameters"] = {**plain, "rope_type": "default"}
    return kind(**settings)


def _share(empty: nn.Module, decoder: nn.Module, kind: str) -> None:
    """Gives an empty model the very parts of a decoder with the same names: layers of torch's own, and other tensors.

    Whoever exchanges a layer's tensor (FSDP2) so exchanges it in both.
    """
    parts = dict(decoder.named_modules())
    tensors: dict[str, Tensor] = {**dict(decoder.named_parameters(remove_duplicate=False))}
    tensors.update(decoder.named_buffers())
    for name, tensor in [*empty.named_parameters(), *empty.named_buffers()]:
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise ValueError(f"no text LLM can be taken out of {kind}: its decoder has no {name} {tuple(tensor.shape)}")
        owner, _, leaf = name.rpartition(".")
        if type(parts.get(owner)) in (nn.Linear, nn.Embedding):
            empty.set_submodule(owner, parts[owner])
        else:
            setattr(empty.get_submodule(owner), leaf, tensors[name])

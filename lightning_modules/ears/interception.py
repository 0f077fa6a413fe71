"""What the decoder of an audio LLM would read: the audio LLM runs up to it and no further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..llm.packed_embeddings import NAME, pack

FIRST_LAYER = ("phi4_multimodal",)
"""Kinds whose decoder merges sound and text itself: there the first layer is what is waited for."""


class _ReachedError(Exception):
    """The decoder is about to run."""


def decoder_inputs(whole: Any, inputs: Mapping[str, Tensor], llm: Any = None) -> Tensor:
    """Returns the embeddings (B, T, H) of text and sound that an audio LLM's own code makes; gradients pass through.

    Those beside them, one a layer (Gemma 4), are packed with them.

    Encoder, projector and the merge with the text are those of any family, as transformers has them: a hook in front
    of the decoder takes what arrives there, and ends the forward pass.

    Args:
        whole: An audio LLM of transformers.
        inputs: ``input_ids`` (B, T), ``attention_mask`` and what the family's processor gives.
        llm: The text LLM that was taken out of it.

    Raises:
        ValueError: If the decoder takes other embeddings beside these, or none arrive.
    """
    decoder = llm.base_model if any(part is llm for part in whole.modules()) else whole.get_decoder()
    flat = whole.config.model_type in FIRST_LAYER
    found: dict[str, Any] = {}

    def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.update(kwargs)
        if flat:
            found["inputs_embeds"] = args[0] if args else kwargs["hidden_states"]
        raise _ReachedError

    handle = (decoder.layers[0] if flat else decoder).register_forward_pre_hook(take, with_kwargs=True)
    try:
        whole(**inputs, use_cache=False)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    kind, embeds = type(whole).__name__, found.pop("inputs_embeds", None)
    if not isinstance(embeds, Tensor):
        raise ValueError(f"model.ear: the decoder of {kind} was given no embeddings: it cannot be trained here")
    embeds = pack(embeds, found.pop(NAME, None))
    known = ("attention_mask", "position_ids")
    beside = [name for name, value in found.items() if name not in known and _is_of_positions(value) and not flat]
    if beside:
        raise ValueError(f"model.ear: the decoder of {kind} takes {', '.join(beside)} beside its embeddings")
    return embeds


def _is_of_positions(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 3

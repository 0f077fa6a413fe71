"""The tuned weights of a model as plain matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..foundation.errors import UserError
from .loaded_model import LoadedModel


def merge(model: LoadedModel) -> Any:
    """Merges LoRA into the LLM's weights, in place; its parameter names are then the base model's.

    Returns:
        The LLM.

    Raises:
        UserError: If its adapters act only at some positions, so that no matrix is the tuned one.
    """
    from ..lightning_modules.llm.lora_layers import merge_lora

    if model.speech_llm is not None and not model.speech_llm.tuning.mergeable:
        raise UserError(
            f"{model.origin.name} has adapters that act on some positions only: there are no tuned weights to "
            "compare; allowed: a run whose tuning can be merged"
        )
    merge_lora(model.llm)
    return model.llm


def with_rows_of(llm: Any, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Extends a base's weights by the audio LLM's rows for tokens that only it has.

    An audio LLM's embeddings may have more rows than its text base's, for the tokens around sound. They have no
    counterpart in the base and count as unchanged. Such a base differs from the real one by what these tokens add to
    the softmax.

    Args:
        llm: The text LLM inside an audio LLM.
        values: Parameter name -> value in the base.

    Returns:
        The values, embeddings and head having as many rows as in ``llm``.
    """
    tables = [table for table in (llm.get_input_embeddings(), llm.get_output_embeddings()) if table is not None]
    grown, found = {id(table.weight) for table in tables}, dict(values)
    for name, parameter in llm.named_parameters():
        if id(parameter) not in grown or name not in found or found[name].shape[1:] != parameter.shape[1:]:
            continue
        if len(found[name]) < len(parameter):
            own = parameter.detach()[len(found[name]) :].to(found[name])
            found[name] = torch.cat([found[name], own])
    return found


def base_values(base: LoadedModel, llm: Any) -> dict[str, Tensor]:
    """Returns a base's weights for every parameter of a text LLM that came from it.

    Args:
        base: A text LLM; LoRA is merged, in place.
        llm: Of the tuned model. It may have more tokens (:func:`with_rows_of`), and its own head if the base's is tied.

    Raises:
        UserError: If the base has its own head and the other one is tied: then it cannot be the base.
    """
    values = {name: p.detach() for name, p in merge(base).named_parameters(remove_duplicate=False)}
    names, head = {name for name, _ in llm.named_parameters()}, base.llm.get_output_embeddings()
    for name, value in values.items():
        if name not in names and head is not None and value.data_ptr() == head.weight.data_ptr():
            table = base.llm.get_input_embeddings().weight
            if not torch.equal(value, table.detach()):
                raise UserError(
                    f"{base.origin.name} has an output head of its own, and that of the other model is its embedding: "
                    "its weights cannot be put into the other; allowed: the model that it came from"
                )
    return with_rows_of(llm, {name: value for name, value in values.items() if name in names})

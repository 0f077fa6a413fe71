"""Causal LMs by name: text LLMs as they are, and the ones inside audio LLMs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
)

from ...foundation.assets import resolve
from .carving import REFUSED, TWINS, carve
from .packed_embeddings import needs_tokens
from .remote_code import has_own_code

SOUND = ("audio", "acoustic", "speech", "encoder_config", "codec_config", "asr_config", "thinker_config")
"""Substrings in the name of a sub-configuration that is about sound."""


def open_causal_lm(source: str, dtype: torch.dtype | str, **options: Any) -> Any:
    """Loads a causal LM: a text LLM as it is, or the one inside an audio LLM.

    Args:
        source: Hub id or folder.
        dtype: Of the weights; ``auto`` keeps their own.
        **options: For ``from_pretrained``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is neither, or comes with its own code.
    """
    if not is_audio_llm(source):
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=False, **options)
    return carve(open_audio_llm(source, read_config(source), dtype, **options))


def is_audio_llm(source: str) -> bool:
    """Returns whether a hub id or folder is of an audio LLM.

    Raises:
        ValueError: If it is of no known kind, or comes with its own code.
    """
    try:
        return hears(read_config(source))
    except OSError:  # a peft folder has no configuration; loading it finds the base or says what is missing
        return False


def refuse_audio_llm(name: str) -> None:
    """Refuses to train an audio LLM as if it were a text LLM, which would take its audio tower for part of the LLM.

    Args:
        name: Hub id, folder or ``asset:`` name that ``model.llm`` gives.

    Raises:
        ValueError: If it is one, of no known kind, or comes with its own code.
    """
    try:
        audio = is_audio_llm(resolve(name))
    except ValueError as error:
        raise ValueError(f"model.llm: '{name}' cannot be read: {error}") from error
    if audio:
        raise ValueError(
            f"model.llm: '{name}' is an audio LLM; allowed: model.ear: OwnEar, with which it hears, or a text LLM"
        )


def refuse_token_reader(name: str) -> None:
    """Refuses an LLM to which an adaptor's positions mean nothing: it needs a token at each.

    Args:
        name: Hub id, folder or ``asset:`` name of a text LLM that ``model.llm`` gives.

    Raises:
        ValueError: If it is one.
    """
    try:
        config = read_config(resolve(name))
    except OSError:  # as in is_audio_llm
        return
    if needs_tokens(config):
        raise ValueError(
            f"model.llm: '{name}' ({config.model_type}) has embeddings of each token at every layer, and takes no "
            "adaptor's positions; allowed: an audio LLM of this family with model.ear: OwnEar, or another text LLM"
        )


def open_audio_llm(source: str, config: PreTrainedConfig, dtype: torch.dtype | str, **options: Any) -> Any:
    """Loads an audio LLM; if it also speaks (Omni), only the part that listens and writes.

    Args:
        source: Hub id or folder.
        config: Its configuration.
        dtype: Of the weights; ``auto`` keeps their own.
        **options: For ``from_pretrained``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If no class for it is known, or it holds no text LLM.
    """
    if config.model_type in REFUSED:
        raise ValueError(f"no text LLM can be taken out of {config.model_type}: {REFUSED[config.model_type]}")
    return _class_of(config).from_pretrained(source, dtype=dtype, **options)


def read_config(source: str) -> PreTrainedConfig:
    """Reads the configuration of a model implemented in transformers.

    Args:
        source: Hub id or folder.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is of no known kind, or comes with its own code: on a terminal, transformers would ask.
    """
    if has_own_code(source):
        raise ValueError(
            "it comes with code of its own, which is not run; allowed: a kind that transformers knows, or in training "
            "model.ear: OwnEar with trust_remote_code: true, if you have read that code"
        )
    return AutoConfig.from_pretrained(source, trust_remote_code=False)


def hears(config: PreTrainedConfig) -> bool:
    """Returns whether a configuration describes an audio LLM: a text LLM, or its twin, beside a part for sound."""
    if config.model_type in REFUSED:
        return True
    parts = set(_parts(config))
    reads = config.model_type in TWINS or bool(parts & {"text_config", "thinker_config"})
    return reads and any(word in name for name in parts for word in SOUND)


def _parts(config: PreTrainedConfig) -> Iterator[str]:
    """Yields the names of the configurations inside another one."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield name


def _class_of(config: PreTrainedConfig) -> Any:
    """Finds the class in transformers; Audio Flamingo is in another mapping than most, NemotronH Omni in neither."""
    inner = getattr(config, "thinker_config", config)
    for known in (MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING):
        if type(inner) in known:
            return known[type(inner)]
    for name in inner.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    raise ValueError(f"transformers has no audio LLM of the kind {inner.model_type}")

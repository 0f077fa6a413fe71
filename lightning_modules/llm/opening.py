"""Causal LMs by name: text LLMs as they are, and what audio LLMs hold of one."""

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

from .carving import REFUSED, TWINS, carve

SOUND = ("audio", "acoustic", "speech", "encoder_config", "codec_config", "asr_config", "thinker_config")
"""What the name of a configuration's part holds that is about sound."""
REMOTE = ("AutoModelForCausalLM", "AutoModelForMultimodalLM", "AutoModel")
"""What remote code calls the class of an audio LLM, in the order of preference."""


def open_causal_lm(source: str, dtype: torch.dtype | str, trust_remote_code: bool = False, **options: Any) -> Any:
    """Loads a causal LM: a text LLM as it is, or the one that an audio LLM holds.

    Args:
        source: Hub id or folder.
        dtype: Of the weights; ``auto`` keeps their own.
        trust_remote_code: Whether code that comes with the weights may run.
        **options: For ``from_pretrained``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is neither, or needs code of its own that may not run.
    """
    config = read_config(source, trust_remote_code)
    if not hears(config):
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=trust_remote_code, **options)
    return carve(open_audio_llm(source, config, dtype, trust_remote_code, **options))


def open_audio_llm(
    source: str, config: PreTrainedConfig, dtype: torch.dtype | str, trust_remote_code: bool = False, **options: Any
) -> Any:
    """Loads an audio LLM; of one that also speaks (Omni), the part that listens and writes.

    Args:
        source: Hub id or folder.
        config: Its configuration.
        dtype: Of the weights; ``auto`` keeps their own.
        trust_remote_code: Whether code that comes with the weights may run.
        **options: For ``from_pretrained``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If no class for it is known, or it holds no text LLM.
    """
    if config.model_type in REFUSED:
        raise ValueError(f"no text LLM can be taken out of {config.model_type}: {REFUSED[config.model_type]}")
    remote = getattr(config, "auto_map", None) or {}
    if trust_remote_code and (names := [name for name in REMOTE if name in remote]):
        loader: Any = getattr(transformers, names[0])
        return loader.from_pretrained(source, dtype=dtype, trust_remote_code=True, **options)
    return _class_of(config).from_pretrained(source, dtype=dtype, **options)


def read_config(source: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Reads the configuration of a model.

    Args:
        source: Hub id or folder.
        trust_remote_code: Whether code that comes with the weights may run.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is of no known kind, or needs code of its own that may not run.
    """
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                "it comes with code of its own, which is not run; allowed: trust_remote_code: true, if you trust it"
            ) from error
        raise


def hears(config: PreTrainedConfig) -> bool:
    """Tells whether a configuration is of an audio LLM: a text LLM, or its twin, beside a part for sound."""
    if config.model_type in REFUSED:
        return True
    parts = dict(_parts(config))
    reads = config.model_type in TWINS or any(name in parts for name in ("text_config", "thinker_config"))
    return reads and any(word in name for name in parts for word in SOUND)


def _parts(config: PreTrainedConfig) -> Iterator[tuple[str, Any]]:
    """Gives the configurations inside another one; of remote code they may be plain dictionaries."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig) or (name.endswith("_config") and isinstance(value, dict)):
            yield name, value


def _class_of(config: PreTrainedConfig) -> Any:
    """Finds the class in transformers; Audio Flamingo stands in another map than most, NemotronH Omni in neither."""
    inner = getattr(config, "thinker_config", config)
    for known in (MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING):
        if type(inner) in known:
            return known[type(inner)]
    for name in inner.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    raise ValueError(f"transformers has no audio LLM of the kind {inner.model_type}")

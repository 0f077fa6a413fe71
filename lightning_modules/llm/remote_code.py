"""Models whose code comes with their weights: run for nobody but those who ask for it by name.

No other file of this package lets transformers run code of a model's repository (tests/test_security.py).
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoProcessor, PreTrainedConfig

CLASSES = ("AutoModelForMultimodalLM", "AutoModelForCausalLM", "AutoModel")
"""Entries of ``auto_map`` under which an audio LLM may stand, the first that is there."""


def has_own_code(source: str) -> bool:
    """Tells whether a hub id or folder is of a kind that transformers does not know, with code of its own.

    Raises:
        OSError: If it cannot be read.
    """
    settings, _ = PreTrainedConfig.get_config_dict(source)
    return "auto_map" in settings and settings.get("model_type") not in CONFIG_MAPPING


def read_remote_config(source: str) -> PreTrainedConfig:
    """Reads the configuration of such a model, by its own code."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=True)
    return config


def open_remote_audio_llm(source: str, dtype: torch.dtype | str) -> Any:
    """Loads such a model, by its own code.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it does not say which class it is.
    """
    settings, _ = PreTrainedConfig.get_config_dict(source)
    name = next((name for name in CLASSES if name in settings["auto_map"]), None)
    if name is None:
        raise ValueError(f"its auto_map names none of {', '.join(CLASSES)}")
    return getattr(transformers, name).from_pretrained(source, dtype=dtype, trust_remote_code=True)


def read_remote_processor(source: str) -> Any:
    """Reads its processor, by its own code where it has some."""
    return AutoProcessor.from_pretrained(source, trust_remote_code=True)

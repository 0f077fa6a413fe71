"""Spoken and text questions: examples, sources, prompts, batches, loaders."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "AudioArray": "example",
    "BadExampleError": "bad_examples",
    "Batch": "batch",
    "ChatPrompt": "prompts",
    "Collator": "collator",
    "Example": "example",
    "HFDataset": "hf_dataset",
    "LlamaOmniJSON": "llama_omni",
    "Manifest": "manifest",
    "PlainText": "plain_text",
    "Probe": "probes",
    "Replay": "replay",
    "RowReader": "rows",
    "Source": "source",
    "SpeechFrontEnd": "front_end",
    "SpeechTextData": "speech_text_data",
    "TokenBudgetSampler": "token_budget_sampler",
    "View": "rows",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: the light parts must not wait for Lightning."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)

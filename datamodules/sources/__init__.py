"""What is read: one line of a manifest, one Example."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "AudioArray": "example",
    "BadExampleError": "bad_examples",
    "Example": "example",
    "HFDataset": "hf_dataset",
    "LlamaOmniJSON": "llama_omni",
    "Manifest": "manifest",
    "PlainText": "plain_text",
    "Source": "source",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)

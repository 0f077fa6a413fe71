"""Sources of examples: one line of a manifest becomes one Example."""

from .bad_examples import BadExampleError
from .example import AudioArray, Example
from .hf_dataset import HFDataset
from .llama_omni import LlamaOmniJSON
from .manifest import Manifest
from .plain_text import PlainText
from .source import Source

__all__ = [
    "AudioArray",
    "BadExampleError",
    "Example",
    "HFDataset",
    "LlamaOmniJSON",
    "Manifest",
    "PlainText",
    "Source",
]

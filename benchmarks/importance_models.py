"""Models and data of the importance benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

Batch = dict[str, Any]

CONFIGS: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 3,
        "num_attention_heads": 8, "num_key_value_heads": 8,
    },
    "1b": {  # the shape of Llama-3.2-1B
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
    "8b": {  # the shape of Llama-3.1-8B
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
}  # fmt: skip


def build(name: str, device: str, dtype: torch.dtype, **changes: int) -> LlamaForCausalLM:
    """A Llama with random weights, made on the device; ``changes`` to its configuration."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(LlamaConfig(**{**CONFIGS[name], **changes}, max_position_embeddings=4096)).eval()
    finally:
        torch.set_default_dtype(before)


def batches(
    vocabulary: int, rows: int, length: int, count: int, device: str, answers: int | None = None
) -> list[Batch]:
    """Random token batches; the last ``answers`` tokens are supervised, all but the first if ``None``."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
        labels = ids.clone()
        labels[:, : length - answers if answers else 1] = -100
        made.append({"input_ids": ids.to(device), "labels": labels.to(device)})
    return made


def plain(model: nn.Module, data: list[Batch]) -> None:
    """The unit: forward and backward of ordinary training."""
    for batch in data:
        model(**batch, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)

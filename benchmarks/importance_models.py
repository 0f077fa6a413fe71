"""Models, data and rival methods for the importance benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
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


def build(name: str, device: str, dtype: torch.dtype) -> LlamaForCausalLM:
    """A Llama with random weights, made on the device."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(LlamaConfig(**CONFIGS[name], max_position_embeddings=4096)).eval()
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


def loop(model: nn.Module, data: list[Batch]) -> dict[str, Tensor]:
    """Per-example loop: one backward for each example; sum of |theta g| and g^2 of every weight."""
    sums = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in model.named_parameters()}
    for batch in data:
        for row in range(len(batch["labels"])):
            model(**{k: v[row : row + 1] for k, v in batch.items()}, use_cache=False).loss.backward()
            for name, parameter in model.named_parameters():
                gradient = parameter.grad
                assert gradient is not None
                sums[name][0].add_((parameter.detach() * gradient).abs_())
                sums[name][1].addcmul_(gradient, gradient)
            model.zero_grad(set_to_none=True)
    return {n: torch.stack([a.sum(), b.sum()]) for n, (a, b) in sums.items()}


def vectorised(model: nn.Module, data: list[Batch]) -> dict[str, Tensor]:
    """``torch.func.vmap(grad)``: all per-example gradients of a batch at once."""
    weights = {n: p.detach() for n, p in model.named_parameters()}

    def loss(values: Mapping[str, Tensor], ids: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(model, dict(values), (), {"input_ids": ids[None], "use_cache": False}).logits[0]
        return F.cross_entropy(logits[:-1], labels[1:])

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))
    sums: dict[str, Tensor] = {}
    for batch in data:
        gradients = per_example(weights, batch["input_ids"], batch["labels"])
        for name, g in gradients.items():
            both = torch.stack([(g * weights[name]).abs().sum(), g.square().sum()])
            sums[name] = sums[name] + both if name in sums else both
    return sums


def batch_gradient(model: nn.Module, data: list[Batch]) -> dict[str, Tensor]:
    """What Torch-Pruning's Taylor and many EWC scripts compute: the batch mean's gradient, |theta g| and g^2."""
    sums: dict[str, Tensor] = {}
    for batch in data:
        model(**batch, use_cache=False).loss.backward()
        rows = len(batch["labels"])
        for name, parameter in model.named_parameters():
            gradient = parameter.grad
            assert gradient is not None
            both = torch.stack([(gradient * parameter.detach()).abs().sum(), gradient.square().sum()]) * rows
            sums[name] = sums[name] + both if name in sums else both
        model.zero_grad(set_to_none=True)
    return sums


RIVALS: dict[str, Callable[[nn.Module, list[Batch]], Any]] = {
    "loop": loop,
    "vmap": vectorised,
    "batch_gradient": batch_gradient,
}

"""A tiny model that has learned something, and helpers to see that it ends as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from .oracle import make_batch, tiny_llama

TRAIN = [make_batch(8, seed=s) for s in range(3)]
OTHER = [make_batch(8, seed=s) for s in range(10, 12)]


def fit(model: nn.Module, data: list[dict], steps: int, lr: float = 3e-3) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        batch = data[step % len(data)]
        optimizer.zero_grad()
        model(**{k: v for k, v in batch.items() if k != "ids"}, use_cache=False).loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def learned() -> nn.Module:
    return fit(tiny_llama(tied=True, layers=3).float(), TRAIN, 120)


def adapted(model: nn.Module, rank: int = 2) -> nn.Module:
    """A copy with trained-looking LoRA adapters on it, injected as a run does: a plain model, not a ``PeftModel``."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=r".*layers.*_proj")
    model = inject_adapter_in_model(config, copy.deepcopy(model))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model.eval()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def assert_unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name

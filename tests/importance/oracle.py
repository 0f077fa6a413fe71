"""The slow truth: one backward per example, plain autograd, float64."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(tied: bool = False, layers: int = 2, seed: int = 0, **extra) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attention_dropout=0.0,
        pad_token_id=0,
        initializer_range=0.15,
        **extra,
    )
    return LlamaForCausalLM(config).double()


def make_batch(rows: int = 4, length: int = 11, seed: int = 0, padded: bool = False) -> dict:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 61, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, : length // 2] = -100
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            stop = length - row
            ids[row, stop:], labels[row, stop:], mask[row, stop:] = 0, -100, 0
    labels[0, length // 2] = -100  # not all examples have the same number of answer tokens
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "ids": [f"{seed}-{i}" for i in range(rows)]}


def example_loss(model: nn.Module, batch: dict, row: int) -> torch.Tensor:
    """Mean cross-entropy over the answer tokens of one example, unpadded and alone."""
    real = batch["attention_mask"][row].bool()
    ids, labels = batch["input_ids"][row][real], batch["labels"][row][real]
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits, labels[1:], ignore_index=-100)


def per_example_gradients(model: nn.Module, batches: list[dict]) -> list[dict[str, torch.Tensor]]:
    """Parameter name -> gradient, for each example in turn."""
    model.eval()
    gradients = []
    for batch in batches:
        for row in range(len(batch["labels"])):
            model.zero_grad(set_to_none=True)
            example_loss(model, batch, row).backward()
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    model.zero_grad(set_to_none=True)
    return gradients


def truth(model: nn.Module, gradients: list[dict[str, torch.Tensor]], name: str) -> dict[str, torch.Tensor]:
    """Estimator -> mean over examples of each weight's score (signed: the per-example totals)."""
    weight = dict(model.named_parameters())[name].detach()
    g = torch.stack([example[name] for example in gradients])
    return {
        "taylor": (weight * g).abs().mean(0),
        "fisher": g.square().mean(0),
        "taylor_batch": (weight * g.mean(0)).abs(),
        "magnitude": weight.abs(),
        "signed_taylor": (weight * g).flatten(1).sum(1),
    }

"""Layers and kinds are found by structure in other families; an independent oracle by ``torch.func``."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from textkeep.importance import probe
from textkeep.importance.sites import find_sites
from textkeep.importance.summary import summary_line

from .oracle import make_batch, per_example_gradients, tiny_llama
from .test_exactness import assert_equal_to_loop

COMMON = {"vocab_size": 61, "pad_token_id": 0}
SMALL = {**COMMON, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}


def build(name: str) -> nn.Module:
    import transformers as t

    torch.manual_seed(0)
    made = {
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**COMMON, n_embd=24, n_layer=2, n_head=4)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SMALL, num_key_value_heads=2)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8)),
        "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**SMALL, num_key_value_heads=2)),
        "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8)),
        "mixtral": lambda: t.MixtralForCausalLM(
            t.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1)
        ),
    }
    return made[name]().double()


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "qwen3", "phi3", "gemma2"])
def test_other_decoders_against_the_loop(name: str) -> None:
    model = build(name)
    batches = [make_batch(3, seed=1, padded=True)]
    snapshot = probe(model, batches, ("taylor", "fisher", "taylor_batch", "magnitude"), include=("norms",))
    if name == "gpt2":  # Conv1D stores (in, out)
        parameters, gradients = dict(model.named_parameters()), per_example_gradients(model, batches)
        for matrix in snapshot.table:
            stacked = torch.stack([g[matrix.name] for g in gradients])
            expected = (stacked * parameters[matrix.name].detach()).abs().mean(0).sum().item()
            assert snapshot.matrices("taylor")[matrix.name] == pytest.approx(expected, rel=1e-10)
        assert {m.kind for m in snapshot.table} >= {"qkv", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    else:
        assert_equal_to_loop(snapshot, model, batches)
    assert len(snapshot.shares("taylor")) == 2


def test_kinds_and_identities_by_family() -> None:
    phi = probe(build("phi3"), [make_batch()])
    assert {m.kind for m in phi.table} == {"qkv", "o", "gate_up", "down"}
    qwen3 = probe(build("qwen3"), [make_batch()])  # norms on q and k break q=k
    assert set(qwen3.meta["conservation"]) == {"up=down", "v=o"}
    qwen2 = probe(build("qwen2"), [make_batch()])  # biases on q, k, v
    assert set(qwen2.meta["conservation"]) == {"up=down"}


def test_fused_experts_are_named_and_lower_the_coverage() -> None:
    told = r"fused experts: model\.layers\.0\.mlp\.experts\.\w+ and 3 more\. Layer shares are of the scored ones alone$"
    with pytest.warns(UserWarning, match=told):
        snapshot = probe(build("mixtral").float(), [make_batch(1)], "taylor")
    words = summary_line(snapshot, "taylor", None)["shares_of"]
    assert re.fullmatch(r"of the \d\d % of .* that are scored \(not: .*fused experts\)", words)
    assert summary_line(probe(tiny_llama(), [make_batch(1)], "taylor"), "taylor", None)["shares_of"] == ""
    assert any("experts" in name for name in snapshot.meta["untapped"])
    assert 0.1 < snapshot.meta["coverage"] < 0.7


def test_only_the_output_head_is_called_so() -> None:
    second = tiny_llama()
    second.model.second = nn.ModuleList([nn.Linear(24, 24)])  # another stack, smaller than the decoder
    kinds = {site.name: site.kind for site in find_sites(second, ("embeddings",)).sites if site.layer is None}
    assert kinds == {
        "model.second.0.weight": "model.second.0",
        "lm_head.weight": "lm_head",
        "model.embed_tokens.weight": "embedding",
    }
    plain = nn.Sequential(nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]), nn.Linear(8, 5))  # names no head itself
    assert [site.kind for site in find_sites(plain, ("embeddings",)).sites][-1] == "lm_head"


def test_against_torch_func_per_example_gradients() -> None:
    model = tiny_llama(tied=True)
    batch = make_batch(4)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(weights: dict, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = functional_call(model, weights, (), {"input_ids": ids[None], "use_cache": False}).logits[0]
        counted = labels[1:] != -100
        tokens = F.cross_entropy(logits[:-1], torch.where(counted, labels[1:], 0), reduction="none")
        return (tokens * counted).sum() / counted.sum()

    model.config._attn_implementation = "eager"
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, batch["input_ids"], batch["labels"])
    snapshot = probe(model, [batch], ("taylor", "fisher"), include=("embeddings", "norms"))
    for index, matrix in enumerate(snapshot.table):
        g = gradients[matrix.name].flatten(1)
        w = parameters[matrix.name].flatten()
        np.testing.assert_allclose(snapshot.examples["fisher"][:, index], g.square().sum(1), rtol=1e-10)
        np.testing.assert_allclose(snapshot.examples["taylor"][:, index], (w * g).abs().sum(1), rtol=1e-10)


class Plain(nn.Module):
    """A decoder that knows nothing of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(61, 16)
        self.stack = nn.ModuleList(nn.ModuleDict({"mix": nn.Linear(16, 16), "w2": nn.Linear(16, 16)}) for _ in range(3))
        self.head = nn.Linear(16, 61)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.words(input_ids)
        for block in self.stack:
            x = x + block["w2"](torch.tanh(block["mix"](x.cumsum(1))))
        return self.head(x)


def test_any_torch_module_that_returns_logits() -> None:
    torch.manual_seed(0)
    snapshot = probe(Plain().double(), [make_batch()], include=("embeddings",))
    assert set(snapshot.shares("taylor", "kind")) == {"mix", "down"}
    assert {m.name for m in snapshot.table if m.layer is None} == {"words.weight", "head.weight"}

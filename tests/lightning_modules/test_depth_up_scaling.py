"""Inserted layers: nothing at first, only they learn, and without them the LLM is the untouched one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

from tests.support.lora_models import build
from tests.support.speech_batches import make_batch
from tests.support.speech_run import make_data, make_trainer
from textkeep.callbacks import ImportanceTracker
from textkeep.datamodules import Probe
from textkeep.foundation.decoder import decoder_layers
from textkeep.importance import Snapshot
from textkeep.lightning_modules import DepthUpScaling, SpeechLLM
from textkeep.lightning_modules.tuning.inserted_layers import insert_layers, inserted_layers, remove_layers

IDS = torch.tensor([[5, 6, 7, 8, 9]])
SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 40,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL, num_key_value_heads=2)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8)
    ),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=3)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=61, n_embd=24, n_layer=4, n_head=4, bos_token_id=1, eos_token_id=2)
    ),
}


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


def generated(llm: Any, cache: bool = True) -> torch.Tensor:
    made = llm.generate(
        input_ids=IDS, max_new_tokens=8, min_new_tokens=8, do_sample=False, use_cache=cache, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    return torch.stack(made.logits)


def wake(llm: nn.Module) -> None:
    """As after some training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in inserted_layers(llm):
            for parameter in layer.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    torch.manual_seed(0)
    llm = FAMILIES[family]().eval()
    names = list(llm.state_dict())
    types = list(getattr(llm.config, "layer_types", None) or [])
    before, spoken = llm(IDS).logits, generated(llm)
    insert_layers(llm, [1, 3])
    layers = decoder_layers(llm)
    assert [getattr(layer, "inserted", False) for layer in layers] == [False, False, True, False, False, True]
    assert llm.config.num_hidden_layers == 6
    indices = [m.layer_idx for layer in layers for m in layer.modules() if isinstance(getattr(m, "layer_idx", 0), int)
               and hasattr(m, "layer_idx")]  # fmt: skip
    assert sorted(set(indices)) == list(range(6))
    if types:
        assert llm.config.layer_types == [types[i] for i in (0, 1, 1, 2, 3, 3)]
    assert torch.equal(llm(IDS).logits, before)
    assert torch.equal(generated(llm), spoken)
    wake(llm)
    assert not torch.allclose(llm(IDS).logits, before, atol=1e-3)
    torch.testing.assert_close(generated(llm), generated(llm, cache=False), rtol=1e-4, atol=1e-4)
    remove_layers(llm)
    assert list(llm.state_dict()) == names
    assert llm.config.num_hidden_layers == 4
    assert list(getattr(llm.config, "layer_types", None) or []) == types
    assert torch.equal(llm(IDS).logits, before)
    assert torch.equal(generated(llm), spoken)


def test_a_model_whose_branches_end_elsewhere_is_refused() -> None:
    llm = FAMILIES["llama"]()
    for layer in llm.model.layers:
        layer.mlp.end = layer.mlp.down_proj
        layer.mlp.add_module("other", nn.Linear(24, 24))
        layer.mlp.forward = lambda x, mlp=layer.mlp: mlp.other(x)
    with pytest.raises(ValueError, match="its residual branches end in other modules"):
        insert_layers(llm, [1])
    assert llm.config.num_hidden_layers == 4


@pytest.mark.parametrize(
    ("fraction", "new"), [(0.25, [4, 9]), (0.5, [2, 5, 8, 11]), (1.0, [1, 3, 5, 7, 9, 11, 13, 15])]
)
def test_where_the_layers_stand(fraction: float, new: list[int]) -> None:
    llm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, "num_hidden_layers": 8}))
    DepthUpScaling(fraction).grow(llm)
    assert [i for i, layer in enumerate(decoder_layers(llm)) if getattr(layer, "inserted", False)] == new
    with pytest.raises(ValueError, match=r"fraction is 0, but must lie in \(0, 1\]"):
        DepthUpScaling(0)


def test_only_the_new_layers_and_the_adaptor_learn(folders: tuple[Path, Path]) -> None:
    model: SpeechLLM = build(DepthUpScaling(0.5, adaptor_lr=0.1), *folders, gradient_checkpointing=True)
    base = AutoModelForCausalLM.from_pretrained(folders[0])
    assert torch.equal(model.llm(IDS).logits, base(IDS).logits)
    groups = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    assert [(g.name, g.lr) for g in groups] == [("adaptor", 0.1), ("llm.02", None)]
    model.train()
    optimizer = torch.optim.SGD([p for g in groups for p in g.parameters], lr=0.5)
    for _ in range(2):  # at first the zeros let only the output matrices learn
        optimizer.zero_grad()
        model.answer_losses(make_batch(model, [40, None]))[0].sum().backward()
        optimizer.step()
    model.eval()
    new = model.llm.model.layers[2]
    assert all(p.grad.any() for name, p in new.named_parameters() if "norm" not in name)
    assert not torch.allclose(model.llm(IDS).logits, base(IDS).logits, atol=1e-4)
    assert not model.reference.needs_copy
    with model.reference.active() as llm:
        assert torch.equal(llm(IDS).logits, base(IDS).logits)
        assert torch.equal(generated(llm), generated(base))
    assert len(model.llm.model.layers) == 3
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    model.on_save_checkpoint(checkpoint)
    assert all(n.startswith(("adaptor.", "llm.model.layers.2.")) for n in checkpoint["state_dict"])
    again = build(DepthUpScaling(0.5), *folders)
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    assert torch.equal(again.llm(IDS).logits, model.llm(IDS).logits)
    model.tuning.remove_inserted(model.llm)
    for name, tensor in base.state_dict().items():
        assert torch.equal(model.llm.state_dict()[name], tensor)


def test_importance_is_followed_over_all_layers(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = build(DepthUpScaling(0.5), *folders, optimizer=lambda g: torch.optim.SGD(g, lr=0.5))
    probes = {"text": Probe(str(tmp_path / "data/val.jsonl"), "text", examples=4, batch_size=2)}
    tracker = ImportanceTracker(replicates=20)
    trainer = make_trainer(tmp_path, [tracker], max_epochs=1, limit_val_batches=0)
    trainer.fit(model, make_data(tmp_path / "data", probes=probes))
    first, *_, last = (Snapshot.load(folder) for folder in sorted((tmp_path / "importance/text").iterdir()))
    shares = [list(snapshot.shares("taylor").values()) for snapshot in (first, last)]
    assert shares[0][2] == 0
    assert shares[1][2] > 0
    for values in shares:
        assert len(values) == 3
        assert np.isclose(sum(values), 1)
    assert all(line["js"] is not None and np.isfinite(line["js"]) for line in tracker.history)

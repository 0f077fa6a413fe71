"""LoRA: the effective weight, what trains, what a checkpoint holds, exact resumption."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tests.support.lora_models import build, wake
from tests.support.speech_batches import make_batch
from textkeep.lightning_modules import (
    EVA,
    ImportanceRanks,
    LinearDepthRates,
    LoRA,
    OPLoRA,
    QLoRA,
    SpeechLLM,
    SpeechTurns,
)
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.saving.frozen_state import check_frozen, drop_frozen
from textkeep.lightning_modules.tuning import qlora
from textkeep.lightning_modules.tuning.injection import linears

SEVEN = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


@pytest.mark.parametrize("rslora", [False, True])
def test_the_effective_weight_is_w_plus_s_b_a(folders: tuple[Path, Path], rslora: bool) -> None:
    model = wake(build(LoRA(r=4, alpha=6, use_rslora=rslora), *folders))
    scale = 6 / (math.sqrt(4) if rslora else 4)
    base = AutoModelForCausalLM.from_pretrained(folders[0])
    for name, layer in lora_layers(model.llm).items():
        x = torch.randn(3, layer.in_features)
        update = scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        expected = x @ (base.get_submodule(name).weight + update).T
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_it_wraps_the_seven_matrices_of_each_layer_and_not_the_tied_head(folders: tuple[Path, Path]) -> None:
    model = build(LoRA(), *folders)
    kinds = [name.rsplit(".", 1)[-1] for name in lora_layers(model.llm)]
    assert sorted(kinds) == sorted(2 * list(SEVEN))
    assert model.llm.lm_head.weight is model.llm.get_input_embeddings().weight
    trained = {name for name, p in model.llm.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all(".lora_A.default." in name or ".lora_B.default." in name for name in trained)
    assert type(model.llm).__name__ == "LlamaForCausalLM"
    assert {layer.r["default"] for layer in lora_layers(model.llm).values()} == {8}
    assert {layer.scaling["default"] for layer in lora_layers(model.llm).values()} == {2.0}


def test_it_finds_the_dense_layers_of_another_family() -> None:
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=20))
    assert {name.split(".", 2)[2].split(".", 1)[1] for name in linears(gpt)} == {
        "attn.c_attn",
        "attn.c_proj",
        "mlp.c_fc",
        "mlp.c_proj",
    }
    assert len(linears(gpt, ["c_proj"])) == 4
    with pytest.raises(ValueError, match=r"targets \['q_proj'\] are not in .* \(allowed: \['c_attn', 'c_fc', 'c_proj'"):
        linears(gpt, ["q_proj"])


def test_it_starts_as_the_base_model_and_is_its_own_reference(folders: tuple[Path, Path]) -> None:
    model = build(LoRA(dropout=0.5), *folders)
    base = AutoModelForCausalLM.from_pretrained(folders[0])
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = base(ids).logits
    assert torch.equal(model.llm(ids).logits, expected)
    wake(model)
    assert not torch.equal(model.llm(ids).logits, expected)
    model.train()
    assert not model.reference.needs_copy
    with model.reference.active() as llm:
        assert torch.equal(llm(ids).logits, expected)
    assert not torch.equal(model.llm(ids).logits, expected)


def test_groups_hold_each_trained_parameter_once(folders: tuple[Path, Path]) -> None:
    model = build(LoRA(adaptor_lr=0.5), *folders)
    groups = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    assert [(g.name, g.lr) for g in groups] == [("adaptor", 0.5), ("llm.00", None), ("llm.01", None)]
    seen = [id(p) for group in groups for p in group.parameters]
    assert len(seen) == len(set(seen))
    assert set(seen) == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_checkpoint_holds_the_adapters_and_refuses_another_base_model(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model = build(LoRA(), *folders)
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    drop_frozen(checkpoint, model)
    assert all(name.startswith("adaptor.") or ".lora_" in name for name in checkpoint["state_dict"])
    check_frozen(checkpoint, build(LoRA(), *folders))
    other = AutoModelForCausalLM.from_pretrained(folders[0])
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    other.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="other frozen weights"):
        check_frozen(checkpoint, build(LoRA(), tmp_path, folders[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r is 0 and alpha is None, but both must be positive"),
        ({"alpha": -1}, "alpha is -1"),
        ({"dropout": 1.0}, r"dropout is 1.0, but must lie in \[0, 1\)"),
        ({"use_dora": True, "gate": SpeechTurns()}, "use_dora rescales the weight itself"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRA(**options)


@pytest.mark.parametrize(("kin", "own"), [(OPLoRA, ["k"]), (QLoRA, [])])
def test_its_kin_have_its_settings(kin: type[LoRA], own: list[str]) -> None:
    theirs = dict(inspect.signature(kin, eval_str=True).parameters)
    for name in own:
        del theirs[name]
    assert theirs == dict(inspect.signature(LoRA, eval_str=True).parameters)


@pytest.mark.parametrize("kin", [OPLoRA, QLoRA])
def test_its_kin_take_each_setting_to_its_place(kin: type[LoRA], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(qlora, "find_spec", lambda name: object())
    settings: dict[str, Any] = {
        "r": 3,
        "alpha": 5,
        "dropout": 0.25,
        "parts": {"llm": ["q_proj"], "encoder": None},
        "use_rslora": True,
        "start": EVA(),
        "gate": SpeechTurns(),
        "ranks": ImportanceRanks("x"),
        "rates": LinearDepthRates(0.5),
        "adaptor_lr": 0.125,
    }
    assert {*settings, "use_dora", "targets"} == set(inspect.signature(LoRA).parameters)
    found, plain = vars(kin(**settings)), vars(LoRA(**settings))
    assert {name: found[name] for name in plain} == {**plain, "mergeable": False}


def test_dora_rescales_the_rows(folders: tuple[Path, Path]) -> None:
    model = wake(build(LoRA(r=2, use_dora=True), *folders))
    layer = lora_layers(model.llm)["model.layers.1.mlp.up_proj"]
    with torch.no_grad():
        layer.lora_magnitude_vector["default"].weight.mul_(1.5)
        direction = layer.base_layer.weight + layer.get_delta_weight("default")
        lengths = 1.5 * layer.base_layer.weight.norm(dim=1)
        expected = lengths[:, None] * torch.nn.functional.normalize(direction, dim=1)
        x = torch.randn(3, 32)
        torch.testing.assert_close(layer(x), x @ expected.T, rtol=1e-4, atol=1e-5)


def test_a_step_moves_only_adapters_and_adaptor(folders: tuple[Path, Path]) -> None:
    model: SpeechLLM = wake(build(LoRA(), *folders)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses, _ = model.answer_losses(make_batch(model, [40, None]))
    losses.sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith("adaptor.") or ".lora_" in name for name in moved)
    assert len([name for name in moved if ".lora_" in name]) == 28

"""PiSSA, OLoRA, EVA and ranks by importance: values by hand, the untouched LLM intact, checkpoints complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.lora_models import build
from tests.support.speech_run import make_data, make_trainer
from textkeep.datamodules import Probe
from textkeep.importance import probe
from textkeep.lightning_modules import EVA, ImportanceRanks, LoRA, OLoRA, PiSSA, SpeechLLM, SpeechTurns
from textkeep.lightning_modules.llm.lora_layers import lora_layers, merge_lora
from textkeep.lightning_modules.saving.frozen_state import check_frozen, drop_frozen
from textkeep.lightning_modules.tuning import lora_starts
from textkeep.lightning_modules.tuning.layer_ranks import apportion
from textkeep.lightning_modules.tuning.lora_starts import AdapterStart


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


def weights(model: SpeechLLM) -> dict[str, torch.Tensor]:
    return {name: layer.get_base_layer().weight for name, layer in lora_layers(model.llm).items()}


@pytest.mark.parametrize("iterations", [None, 16])
def test_pissa_begins_as_the_first_singular_directions(folders: tuple[Path, Path], iterations: int | None) -> None:
    model = build(LoRA(r=3, alpha=12, start=PiSSA(iterations)), *folders)
    before = {name: weight.clone() for name, weight in weights(model).items()}
    assert model.tuning.initialize(model)
    for name, layer in lora_layers(model.llm).items():
        assert torch.equal(layer.get_base_layer().weight, before[name])
        u, s, v = torch.linalg.svd(before[name].double(), full_matrices=False)
        top = (u[:, :3] * s[:3]) @ v[:3]
        product = 4.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        if iterations is None:
            torch.testing.assert_close(product.double(), top, rtol=1e-3, atol=1e-4)
        left = (before[name] - product).norm()  # random weights have close singular values: the hardest case
        assert left.item() == pytest.approx((before[name].double() - top).norm().item(), rel=1e-2)
        x = torch.randn(2, layer.in_features)
        torch.testing.assert_close(layer(x), x @ before[name].T, rtol=1e-4, atol=1e-5)


def test_olora_begins_as_the_qr_decomposition(folders: tuple[Path, Path]) -> None:
    model = build(LoRA(r=3, start=OLoRA()), *folders)
    before = {name: weight.clone() for name, weight in weights(model).items()}
    model.tuning.initialize(model)
    for name, layer in lora_layers(model.llm).items():
        assert torch.equal(layer.get_base_layer().weight, before[name])
        q, r = torch.linalg.qr(before[name])
        torch.testing.assert_close(layer.lora_B["default"].weight, q[:, :3])
        torch.testing.assert_close(layer.lora_A["default"].weight, r[:3])
        x = torch.randn(2, layer.in_features)
        torch.testing.assert_close(layer(x), x @ before[name].T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [PiSSA(), OLoRA()], ids=["pissa", "olora"])
def test_what_moved_the_weight_keeps_the_untouched_model_and_travels_in_checkpoints(
    folders: tuple[Path, Path], start: AdapterStart
) -> None:
    model = build(LoRA(r=3, start=start, dropout=0.4, gate=SpeechTurns()), *folders)
    model.tuning.initialize(model)
    trained = [p for p in model.llm.parameters() if p.requires_grad]
    assert len(trained) == 28
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.05 * torch.randn_like(parameter))
    ids = torch.tensor([[5, 6, 7]])
    base = AutoModelForCausalLM.from_pretrained(folders[0])
    assert torch.equal(model.llm(ids).logits, base(ids).logits)  # the gate is shut
    with model.tuning.gate.open():
        tuned = model.llm(ids).logits
        with model.reference.active() as llm:
            assert torch.equal(llm(ids).logits, base(ids).logits)

    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    model.on_save_checkpoint(checkpoint)
    assert sum(".lora_A.initial." in name for name in checkpoint["state_dict"]) == 14
    assert not any("base_layer" in name for name in checkpoint["state_dict"])
    again = build(LoRA(r=3, start=start, gate=SpeechTurns()), *folders)
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    assert again.tuning.initialize(again) == []  # it has its values
    with again.tuning.gate.open():
        assert torch.equal(again.llm(ids).logits, tuned)
    again.llm.train()
    for layer in lora_layers(again.llm).values():
        layer._disable_adapters = False
    merge_lora(again.llm)
    torch.testing.assert_close(again.llm.eval()(ids).logits, tuned, rtol=1e-4, atol=1e-4)


def test_eva_reads_all_examples_in_each_pass(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches in turns kept peft's directions of SmolLM2 moving for ever."""
    passes: list[torch.Size] = []
    forward = lora_starts._Bare.forward

    def counted(bare: lora_starts._Bare, **inputs: torch.Tensor) -> object:
        passes.append(inputs["attention_mask"].shape)
        return forward(bare, **inputs)

    monkeypatch.setattr(lora_starts._Bare, "forward", counted)
    probes = {"heard": Probe(str(tmp_path / "data/val.jsonl"), "speech", examples=6, batch_size=2)}
    data = make_data(tmp_path / "data", probes=probes)
    make_trainer(tmp_path / "run", [], max_steps=0, limit_val_batches=0).fit(
        build(LoRA(r=3, start=EVA("heard")), *folders), data
    )
    assert 3 <= len(passes) <= 10
    assert {shape[0] for shape in passes} == {6}


def test_only_the_pair_that_learns_takes_dropout(folders: tuple[Path, Path]) -> None:
    model = build(LoRA(r=3, start=PiSSA(), dropout=0.5), *folders)
    layer = next(iter(lora_layers(model.llm).values()))
    assert isinstance(layer.lora_dropout["default"], torch.nn.Dropout)
    assert isinstance(layer.lora_dropout["initial"], torch.nn.Identity)


@pytest.mark.parametrize("batch_size", [6, 1])
def test_eva_begins_as_the_principal_directions_of_the_inputs(
    folders: tuple[Path, Path], tmp_path: Path, batch_size: int
) -> None:
    model = build(LoRA(r=3, start=EVA("heard")), *folders)
    source = str(tmp_path / "data/val.jsonl")
    data = make_data(tmp_path / "data", probes={"heard": Probe(source, "speech", examples=6, batch_size=batch_size)})
    base = AutoModelForCausalLM.from_pretrained(folders[0])
    ids = torch.tensor([[5, 6, 7]])
    seen: dict[str, list[torch.Tensor]] = {}

    make_trainer(tmp_path / "run", [], max_steps=0, limit_val_batches=0).fit(model, data)
    assert len(data.probe_batches("heard")) == 6 // batch_size
    for batch in data.probe_batches("heard"):
        mask = batch.attention_mask.bool()
        hooks = [
            base.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name, mask=mask: seen.setdefault(name, []).append(args[0][mask])
            )
            for name in lora_layers(model.llm)
        ]
        with torch.no_grad():
            inputs = model.embed(batch)
            base(inputs_embeds=inputs["inputs_embeds"], attention_mask=inputs["attention_mask"])
        for hook in hooks:
            hook.remove()
    assert len(seen) == 14
    for name, layer in lora_layers(model.llm).items():
        a = layer.lora_A["default"].weight.detach()
        torch.testing.assert_close(a @ a.T, torch.eye(3), rtol=1e-3, atol=1e-3)
        assert not layer.lora_B["default"].weight.any()
        inputs = torch.cat(seen[name])
        centred = (inputs - inputs.mean(0)).double()
        s = torch.linalg.svdvals(centred)
        kept = (centred @ a.double().T).square().sum() / centred.square().sum()
        best = s[:3].square().sum() / s.square().sum()
        assert kept.item() == pytest.approx(best.item(), rel=0.02)
    assert torch.equal(model.llm(ids).logits, base(ids).logits)


def test_ranks_by_hand() -> None:
    assert apportion(10, [0.5, 0.3, 0.2]) == [5, 3, 2]
    assert apportion(7, [0.5, 0.3, 0.2]) == [4, 2, 1]  # 3.5, 2.1, 1.4: the half gets the one that is left
    assert apportion(0, [0.5, 0.5]) == [0, 0]
    assert apportion(3, [0.0, 1.0]) == [0, 3]


@pytest.mark.parametrize("reverse", [False, True])
def test_ranks_follow_the_importance_and_keep_their_mean(
    folders: tuple[Path, Path], tmp_path: Path, reverse: bool
) -> None:
    base = AutoModelForCausalLM.from_pretrained(folders[0])
    with torch.no_grad():
        for projection in base.model.layers[0].mlp.children():
            if isinstance(projection, torch.nn.Linear):
                projection.weight.mul_(4)  # shares that differ
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([[-100, -100, 7, 8]])}
    snapshot = probe(base, [batch], ("taylor",))
    snapshot.save(tmp_path / "snapshot")
    share = next(iter(snapshot.shares("taylor").values()))
    share = 1 - share if reverse else share
    ranks = ImportanceRanks(str(tmp_path / "snapshot"), reverse=reverse)
    found = ranks.of(2, 8)
    assert sum(found) == 16
    assert found[0] == pytest.approx(1 + 14 * share, abs=0.5)
    model = build(LoRA(r=8, alpha=24, ranks=ranks), *folders)
    for name, layer in lora_layers(model.llm).items():
        rank = found[int(name.split(".")[2])]
        assert layer.lora_A["default"].weight.shape == (rank, layer.in_features)
        assert layer.lora_B["default"].weight.shape == (layer.out_features, rank)
        assert layer.scaling["default"] == 3.0
        assert layer.lora_A["default"].weight.requires_grad
        x = torch.randn(2, layer.in_features)
        assert torch.equal(layer(x), layer.get_base_layer()(x))
    assert found[0] != 8
    with pytest.raises(ValueError, match="is of 2 decoder layers, but the LLM has 3"):
        ranks.of(3, 8)

    # A checkpoint brings its ranks, also when the snapshot is gone; a new fit is told.
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    model.on_save_checkpoint(checkpoint)
    again = build(LoRA(r=8, alpha=24, ranks=ImportanceRanks(str(tmp_path / "gone"))), *folders)
    with pytest.raises(FileNotFoundError, match="gone"):
        again.tuning.initialize(again)
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="PiSSA begins with B A as a part of the weight, use_dora with"):
        LoRA(use_dora=True, start=PiSSA())
    with pytest.raises(ValueError, match="iterations is 0"):
        PiSSA(0)
    with pytest.raises(ValueError, match="estimator 'tailor' is unknown"):
        ImportanceRanks("x", "tailor")
    LoRA(use_dora=True, start=EVA())


def test_another_base_model_is_told_by_hash_also_under_pissa(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = build(LoRA(r=2, start=PiSSA()), *folders)
    model.tuning.initialize(model)
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    drop_frozen(checkpoint, model, to_save=model.tuning.frozen_to_save(model.llm))
    fresh = build(LoRA(r=2, start=PiSSA()), *folders)
    check_frozen(checkpoint, fresh, fresh.tuning.frozen_to_save(fresh.llm))
    with torch.no_grad():
        next(iter(weights(fresh).values()))[0, 0] += 1e-3
    with pytest.raises(ValueError, match="other frozen weights"):
        check_frozen(checkpoint, fresh, fresh.tuning.frozen_to_save(fresh.llm))

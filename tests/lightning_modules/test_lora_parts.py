"""LoRA by choice of part: the LLM, the adaptor, the encoder; around a text LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.lora_models import build
from tests.support.speech_batches import make_batch
from textkeep.lightning_modules import LinearDepthRates, LoRA, SpeechLLM, SpeechTurns, StackTransformer
from textkeep.lightning_modules.llm.lora_layers import lora_layers, merge_sound_lora
from textkeep.lightning_modules.saving.adaptor_file import save_adaptor
from textkeep.lightning_modules.saving.export_folder import write_export
from textkeep.lightning_modules.tuning.injection import linears_that_hear

Parts = dict[str, list[str] | None]


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


@pytest.fixture
def learned(folders: tuple[Path, Path], tmp_path: Path) -> dict[str, Any]:
    """An adaptor that has learned."""
    model = build(LoRA(r=2), *folders)
    save_adaptor(tmp_path / "adaptor.safetensors", model.adaptor, model.encoder, "", torch.float32)
    return {"adaptor_weights": str(tmp_path / "adaptor.safetensors")}


def awake(model: SpeechLLM) -> SpeechLLM:
    for part in (model.llm, model.adaptor, model.encoder):
        for layer in lora_layers(part).values():
            torch.nn.init.normal_(layer.lora_B["default"].weight, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize(
    ("parts", "wrapped", "groups"),
    [
        (None, (14, 0, 0), ["adaptor", "llm.00", "llm.01"]),
        ({"adaptor": None}, (0, 2, 0), ["adaptor"]),
        ({"encoder": ["q_proj", "v_proj"]}, (0, 0, 4), ["adaptor", "encoder"]),
        ({"llm": ["q_proj"], "adaptor": ["output"], "encoder": None}, (2, 1, 12), None),
    ],
)
def test_it_is_put_on_what_is_chosen_and_no_more(
    folders: tuple[Path, Path], learned: dict[str, Any], parts: Parts | None, wrapped: Any, groups: list[str] | None
) -> None:
    tuning = LoRA(r=2, parts=parts)
    model = build(tuning, *folders, **learned)
    untouched = build(LoRA(r=2), *folders, **learned)
    batch = make_batch(model, [100, None])
    assert torch.equal(model.answer_losses(batch)[0], untouched.answer_losses(batch)[0])  # B is zero
    assert tuple(len(lora_layers(part)) for part in (model.llm, model.adaptor, model.encoder)) == wrapped
    found = tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    assert groups is None or [group.name for group in found] == groups
    trained = [parameter for group in found for parameter in group.parameters]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    model.step_total(make_batch(model, [100, None])).loss.backward()
    assert all(parameter.grad is not None for parameter in trained)


def test_on_the_path_of_sound_it_cannot_touch_text(folders: tuple[Path, Path], learned: dict[str, Any]) -> None:
    tuning = LoRA(r=2, parts={"adaptor": None, "encoder": None})
    model = build(tuning, *folders, **learned)
    batch = make_batch(model, [None, 100])
    before = model.answer_losses(batch)[0]
    after = awake(model).answer_losses(batch)[0]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert not tuning.changes_text
    assert not tuning.trains_llm
    assert not model.reference.needs_copy


@pytest.mark.parametrize("gate", [None, SpeechTurns()], ids=["merged", "gated"])
def test_an_export_has_it_merged_where_it_hears(
    folders: tuple[Path, Path], learned: dict[str, Any], gate: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"r": 2, "parts": {"llm": None, "adaptor": None, "encoder": None}}
    model = awake(build(LoRA(**options, gate=gate), *folders, **learned))
    batch = make_batch(model, [100, 70, None])
    wanted = model.answer_losses(batch)[0]
    merge_sound_lora(model.encoder, model.adaptor)
    torch.testing.assert_close(model.answer_losses(batch)[0], wanted, rtol=1e-4, atol=1e-4)
    if gate is None:
        return
    module = "textkeep.lightning_modules."
    tuning = {"class_path": f"{module}LoRA", "init_args": {**options, "gate": {"class_path": f"{module}SpeechTurns"}}}
    parts = {
        "encoder": {"class_path": f"{module}WhisperEncoder", "init_args": {"source": str(folders[1])}},
        "adaptor": {"class_path": f"{module}ConcatMLP", "init_args": {"stack": 5, "hidden": 16}},
    }
    write_export(tmp_path / "out", model, {**parts, "tuning": tuning}, {}, {})
    again = SpeechLLM.from_run(tmp_path / "out")
    assert torch.equal(again.answer_losses(batch)[0], model.answer_losses(batch)[0])


def test_frozen_batch_norms_do_not_go_on_counting(folders: tuple[Path, Path], learned: dict[str, Any]) -> None:
    model = build(LoRA(r=2, parts={"encoder": None}), *folders, **learned)
    model.encoder.add_module("norm", nn.BatchNorm1d(2).requires_grad_(False))
    model.train()
    assert model.encoder.training
    assert not model.encoder.norm.training


def test_what_torch_computes_without_calling_it_gets_none() -> None:
    adaptor = StackTransformer(stack=2, layers=1, heads=2, width=8)
    adaptor.build(8, 16)
    assert set(linears_that_hear(adaptor, "adaptor")) == {"input", "output"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"parts": {"ear": None}}, r"parts \['ear'\] is none of the model's; allowed: llm, adaptor, encoder"),
        ({"parts": {}}, "parts is empty; allowed: llm, adaptor, encoder, or AdaptorOnly"),
        ({"parts": {"llm": []}}, "LoRA: parts.llm is an empty list; allowed: names of matrices, or null for all"),
        ({"parts": {"llm": None, "encoder": []}}, "LoRA: parts.encoder is an empty list; allowed"),
        ({"targets": []}, "LoRA: targets is an empty list; allowed"),
        ({"parts": {"llm": None}, "targets": ["q_proj"]}, "allowed: parts.llm alone"),
        ({"parts": {"adaptor": None}, "gate": SpeechTurns()}, "gate is of the LLM's LoRA, and parts leaves the LLM"),
        ({"parts": {"encoder": None}, "rates": LinearDepthRates(0.5)}, "rates is of the LLM's LoRA"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_built(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LoRA(**options)


def test_names_that_match_nothing_are_refused(folders: tuple[Path, Path], learned: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"targets \['gate_proj'\] are not in the encoder \(allowed: \['fc1', 'fc2', "):
        build(LoRA(parts={"encoder": ["gate_proj"]}), *folders, **learned)
    with pytest.raises(ValueError, match=r"targets \['fc1'\] are not in the adaptor \(allowed: \['input', 'output'\]"):
        build(LoRA(parts={"adaptor": ["fc1"]}), *folders, **learned)
    with pytest.raises(ValueError, match="the encoder has no dense layer that LoRA can be put on"):
        linears_that_hear(nn.Conv1d(2, 2, 1), "encoder")


def test_a_new_adaptor_is_not_frozen_under_lora(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"LoRA.parts puts LoRA on an adaptor that begins with random weights"):
        build(LoRA(parts={"adaptor": None}), *folders)

"""Audio LLMs that came with LoRA for sound alone (Granite Speech): trained on behind a gate, or merged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import GraniteSpeechForConditionalGeneration

from tests.support.speech_batches import make_batch
from tests.support.tiny_audio_llms import FAMILIES, build_tiny, tiny_tokenizer, write_tiny_audio_llm
from textkeep.lightning_modules import (
    AdaptorOnly,
    FullFineTuning,
    LoRA,
    OwnEar,
    SpeechLLM,
    SpeechPositions,
    SpeechTurns,
)
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.llm.opening import open_causal_lm
from textkeep.lightning_modules.saving.export_folder import write_export
from textkeep.lightning_modules.tuning import Tuning

CLIPS = [100, 173]
SCALE = 8.0
"""Of the logits, which transformers' Granite Speech leaves out."""
SAME: dict[str, Any] = {"r": 2, "alpha": 3, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As on the hub: the adapter lies beside the weights."""
    folder = write_tiny_audio_llm("granite_speech", tmp_path_factory.mktemp("granite"))
    whole = build_tiny("granite_speech", tiny_tokenizer(FAMILIES["granite_speech"]))
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    config.target_modules = r".*language_model.*\.(q_proj|v_proj)"
    whole.add_adapter(config)
    whole.save_pretrained(str(folder / "saved"))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(folder / "saved" / name, folder / name)
    shutil.rmtree(folder / "saved")
    return folder


def built(folder: Path, own_lora: Any, tuning: Tuning) -> SpeechLLM:
    torch.manual_seed(0)
    model = SpeechLLM(str(folder), ear=OwnEar(own_lora=own_lora), tuning=tuning, max_new_tokens=4)
    model.configure_model()
    return model.eval()


def logits(model: SpeechLLM, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.answer_logits(batch).logits


def of_the_whole(folder: Path, model: SpeechLLM, batch: Any) -> torch.Tensor:
    """What transformers' own class computes on sound, with its LoRA."""
    whole = GraniteSpeechForConditionalGeneration.from_pretrained(folder).eval()
    ids = batch.input_ids.masked_fill(batch.audio_mask, whole.config.audio_token_id)
    found = whole(input_ids=ids, attention_mask=batch.attention_mask, **batch.inputs).logits / SCALE
    first = int((batch.labels != -100).any(dim=0).nonzero()[0])
    return found[:, first - 1 : -1]


@torch.no_grad()
@pytest.mark.parametrize("own_lora", ["gate", "merge"])
def test_speech_is_what_the_whole_computes(folder: Path, own_lora: str) -> None:
    tuning = LoRA(**SAME, gate=SpeechTurns()) if own_lora == "gate" else AdaptorOnly()
    model = built(folder, own_lora, tuning)
    texts, spoken = make_batch(model, [None, None]), make_batch(model, CLIPS)
    found, wanted = logits(model, spoken), of_the_whole(folder, model, spoken)
    known = (spoken.labels != -100)[:, -found.shape[1] :]
    torch.testing.assert_close(found[known], wanted[known], rtol=1e-4, atol=1e-6)
    bare = open_causal_lm(str(folder), torch.float32)  # the text LLM, without LoRA
    with_lora = logits(model, texts)
    model.llm = bare
    assert torch.equal(with_lora, logits(model, texts)) == (own_lora == "gate")


def test_it_is_trained_on_and_exported(folder: Path, tmp_path: Path) -> None:
    model = built(folder, "gate", LoRA(**SAME, gate=SpeechTurns()))
    texts, spoken = make_batch(model, [None, None]), make_batch(model, CLIPS)
    before = logits(model, texts), logits(model, spoken)
    first = {name: layer.lora_B["default"].weight.clone() for name, layer in lora_layers(model.llm).items()}
    assert all(tensor.any() for tensor in first.values())
    model.step_total(spoken).loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5).step()
    assert not any(torch.equal(lora_layers(model.llm)[n].lora_B["default"].weight, b) for n, b in first.items())
    assert torch.equal(logits(model, texts), before[0])
    assert not torch.equal(logits(model, spoken), before[1])
    module = "textkeep.lightning_modules."
    gate = {"class_path": f"{module}SpeechTurns"}
    settings = {
        "tuning": {"class_path": f"{module}LoRA", "init_args": {**SAME, "gate": gate}},
        "ear": {"class_path": f"{module}OwnEar", "init_args": {"own_lora": "gate"}},
    }
    write_export(tmp_path / "out", model, settings, {}, {})
    again = SpeechLLM.from_run(tmp_path / "out")
    for batch in (texts, spoken):
        assert torch.equal(logits(again, batch), logits(model, batch))


def test_the_merged_one_is_its_own_yardstick_and_plain_to_export(folder: Path, tmp_path: Path) -> None:
    model = built(folder, "merge", FullFineTuning())
    copy = model.reference.copy().state_dict()
    assert all(torch.equal(tensor, copy[name]) for name, tensor in model.llm.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.llm.parameters())
    settings = {"tuning": None, "ear": {"class_path": "textkeep.lightning_modules.OwnEar"}}
    write_export(tmp_path / "out", model, settings, {}, {})
    assert not list(tmp_path.rglob("adapter*"))
    batch = make_batch(model, CLIPS)
    found, wanted = logits(model, batch), of_the_whole(tmp_path / "out", model, batch)
    known = (batch.labels != -100)[:, -found.shape[1] :]
    torch.testing.assert_close(found[known], wanted[known], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("own_lora", "tuning", "told"),
    [
        (None, FullFineTuning(), r"own_lora: gate, which trains it on and leaves text alone, or merge"),
        ("gate", FullFineTuning(), r"SpeechTurns, r: 2, alpha: 3, targets: \[q_proj, v_proj\], not FullFineTuning"),
        ("gate", LoRA(**SAME), "own_lora: gate needs model.tuning: LoRA with gate: SpeechTurns"),
        ("gate", LoRA(**SAME, gate=SpeechPositions()), "own_lora: gate needs"),
        ("gate", LoRA(**{**SAME, "alpha": 4}, gate=SpeechTurns()), "own_lora: gate needs"),
        ("gate", LoRA(r=2, alpha=3, gate=SpeechTurns()), "own_lora: gate needs"),
    ],
)
def test_what_would_act_otherwise_is_refused(folder: Path, own_lora: Any, tuning: Tuning, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        built(folder, own_lora, tuning)
    with pytest.raises(ValueError, match="own_lora 'keep' is unknown; allowed: gate, merge, null"):
        OwnEar(own_lora="keep")  # type: ignore[arg-type]

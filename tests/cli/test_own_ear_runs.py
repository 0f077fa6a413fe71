"""An audio LLM from ``fit`` to ``export``: trained through its own ear, asked, handed back to plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from tests.support.speech_batches import make_batch
from tests.support.tiny_audio_llms import class_of, write_tiny_audio_llm
from textkeep.cli.main import main
from textkeep.foundation.errors import UserError
from textkeep.inference import load
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules.llm.carving import carve

FAMILY = "qwen2_5_omni_thinker"  # a twin, a projector inside of the tower, and an eye that nothing here trains
FULL = {"class_path": "FullFineTuning", "init_args": {"train_encoder": True}}
GATED = {"class_path": "LoRA", "init_args": {"r": 2, "gate": {"class_path": "SpeechTurns"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_audio_llm(FAMILY, tmp_path_factory.mktemp("audio_llm") / "llm")


def fitted(where: Path, folder: Path, settings: dict[str, Any], tuning: dict[str, Any], **model: Any) -> Path:
    """A run of three steps over all that ``fit`` does."""
    given = {key: settings["model"][key] for key in ("optimizer", "max_new_tokens")}
    made = {**given, "llm": str(folder), "ear": {"class_path": "OwnEar"}, "tuning": tuning, **model}
    trainer = {**settings["trainer"], "default_root_dir": str(where / "run"), "logger": False}
    data = {**settings["data"], "train_modalities": "both", "speech_instruction": " Answer it."}
    (where / "run.yaml").write_text(yaml.safe_dump({"trainer": trainer, "model": made, "data": data}))
    assert main(["fit", "--config", str(where / "run.yaml")]) == 0
    return where / "run"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, folder: Path, tiny_settings: dict[str, Any]) -> Path:
    return fitted(tmp_path_factory.mktemp("full"), folder, tiny_settings, FULL)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory, folder: Path, tiny_settings: dict[str, Any]) -> Path:
    return fitted(tmp_path_factory.mktemp("gated"), folder, tiny_settings, GATED)


def as_it_came(folder: Path) -> Any:
    kind: Any = class_of(AutoConfig.from_pretrained(folder).model_type)
    found, told = kind.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    return found.eval()


def heard(whole: Any, folder: Path, audio: bool = True) -> torch.Tensor:
    """Logits of an audio LLM on a clip, with the processor beside it."""
    processor = AutoProcessor.from_pretrained(folder)
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy() * 0.1
    text = "<|audio_bos|><|AUDIO|><|audio_eos|> What?" if audio else "What?"
    sound = {"audio": [noise]} if audio else {}
    with torch.no_grad():
        return whole(**processor(text=[text], **sound, return_tensors="pt")).logits


def test_an_export_is_the_audio_llm_again(full: Path, folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(full), "-o", str(tmp_path / "out")]) == 0
    model = SpeechLLM.from_run(full)
    whole = as_it_came(tmp_path / "out")
    assert torch.equal(heard(whole, tmp_path / "out"), heard(model.ear.whole(model.llm).eval(), folder))
    before = as_it_came(folder)
    assert not torch.equal(heard(whole, tmp_path / "out"), heard(before, folder))
    for part in (
        "model.audio_tower.proj",
        "model.audio_tower.layers.0.fc1",
        "model.language_model.layers.1.mlp.up_proj",
    ):
        assert not torch.equal(whole.get_submodule(part).weight, before.get_submodule(part).weight), part
    eyes = [name for name, _ in before.named_parameters() if name.startswith("model.visual.")]
    assert len(eyes) > 5
    assert all(torch.equal(whole.get_parameter(name), before.get_parameter(name)) for name in eyes)


def test_run_and_export_answer_alike(
    full: Path, tiny_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(full), "-o", str(tmp_path / "out")]) == 0
    clip = str(tiny_manifest.parent / "3.wav")
    said = []
    for source in (full, tmp_path / "out"):
        capsys.readouterr()
        assert main(["ask", str(source), "--audio", clip, "--text", "What?", "--json"]) == 0
        said.append([json.loads(line)["answer"] for line in capsys.readouterr().out.splitlines()])
    assert said[0] == said[1]
    assert len(said[0]) == 2
    words = ["--config", str(full.parent / "run.yaml"), "--trainer.default_root_dir", str(tmp_path / "test")]
    assert main(["validate", *words, "--ckpt_path", str(full / "checkpoints" / "last.ckpt")]) == 0


def test_the_text_llm_alone_is_a_folder_of_its_own(full: Path, tmp_path: Path) -> None:
    assert main(["export", str(full), "-o", str(tmp_path / "text"), "--text-only"]) == 0
    llm = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    assert type(llm).__name__ == "Qwen2ForCausalLM"
    ids = torch.tensor([[20, 21, 22]])
    with torch.no_grad():
        assert torch.equal(llm(ids).logits, SpeechLLM.from_run(full).llm(ids).logits)
    with pytest.raises(UserError, match="cannot listen"):
        load(tmp_path / "text", "cpu").ask(audio=torch.zeros(16000))


def test_behind_a_gate_text_is_the_base_and_lora_lies_beside(gated: Path, folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(gated), "-o", str(tmp_path / "out")]) == 0
    model, again = SpeechLLM.from_run(gated), SpeechLLM.from_run(tmp_path / "out")
    untouched = SpeechLLM.from_run(tmp_path / "out").reference
    texts, spoken = make_batch(model, [None, None]), make_batch(model, [60, 90])
    with torch.no_grad():
        found, theirs = model.answer_logits(spoken).logits, again.answer_logits(spoken).logits
        assert torch.equal(found, theirs)
        assert torch.equal(model.answer_logits(texts).logits, untouched.untouched_logits(texts).logits)
        assert torch.equal(carve(as_it_came(folder))(texts.input_ids).logits, model.llm(texts.input_ids).logits)
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    whole = as_it_came(tmp_path / "out")
    assert torch.equal(heard(whole, tmp_path / "out", audio=False), heard(as_it_came(folder), folder, audio=False))


def status(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as end:  # of what cannot be parsed
        return int(end.code or 0)


def test_what_an_audio_llm_does_not_give_is_refused_in_a_line(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(full.parent / "run.yaml"), "--trainer.default_root_dir", str(tmp_path / "r")]
    for more, told in (
        (["--data.feature_cache", str(tmp_path / "cache")], "data.feature_cache keeps the frames of model.encoder"),
        (["--model.ear", "null"], "model.encoder: a text LLM hears with an encoder and an adaptor"),
        (["--model.ear", "OwnEars"], "model.ear: no class 'OwnEars'"),
        (["--model.ear.processr", "x"], "model.ear: OwnEar has no option 'processr'"),
    ):
        assert status(["fit", *words, *more]) == 2
        assert told in capsys.readouterr().err
    assert status(["plan", str(full.parent / "run.yaml")]) == 2
    assert "an audio LLM cannot be planned from its configuration alone; allowed: textkeep" in capsys.readouterr().err
    assert main(["adaptor", str(full), "-o", str(tmp_path / "a.safetensors")]) == 2
    assert "listens through an audio LLM's own projector; allowed: textkeep export" in capsys.readouterr().err

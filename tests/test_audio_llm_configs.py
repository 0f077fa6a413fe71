"""Each config of an audio LLM trains a step on a tiny random model of the class that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from tests.support.tiny_audio_llms import class_of, write_tiny_audio_llm
from textkeep.cli.main import main
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules.llm.carving import carve

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FAMILIES = {
    "audio_flamingo_3": "audioflamingo3",
    "fun_asr_nano": "fun_asr_nano",
    "glm_asr_nano": "glmasr",
    "granite_speech": "granite_speech",
    "music_flamingo": "musicflamingo",
    "qwen2_5_omni_7b": "qwen2_5_omni_thinker",
    "qwen2_audio": "qwen2_audio",
    "qwen3_asr": "qwen3_asr",
}
"""Config -> what its model is in transformers."""


def test_every_config_is_tried_and_six_name_a_base() -> None:
    files = sorted((CONFIGS / "audio_llms").glob("*.yaml"))
    assert [file.stem for file in files] == sorted(FAMILIES)
    assert sum(bool(yaml.safe_load(file.read_text())["model"]["base"]) for file in files) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains_a_step(name: str, tmp_path: Path, tiny_settings: dict[str, Any]) -> None:
    own = CONFIGS / "audio_llms" / f"{name}.yaml"
    model: dict[str, Any] = {"llm": str(write_tiny_audio_llm(FAMILIES[name], tmp_path / "llm")), "max_new_tokens": 4}
    if yaml.safe_load(own.read_text())["model"]["base"]:
        carve(class_of(FAMILIES[name]).from_pretrained(tmp_path / "llm")).save_pretrained(tmp_path / "base")
        AutoTokenizer.from_pretrained(tmp_path / "llm").save_pretrained(tmp_path / "base")
        model["base"] = str(tmp_path / "base")
    trainer = {**tiny_settings["trainer"], "precision": "32-true", "max_steps": 1, "limit_val_batches": 0}
    trainer |= {"callbacks": [], "logger": False, "default_root_dir": str(tmp_path / "run")}
    data = {**tiny_settings["data"], "num_workers": 0, "probes": {}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"trainer": trainer, "model": model, "data": data}))
    files = (CONFIGS / "audio_llm.yaml", own, tmp_path / "tiny.yaml")
    assert main(["fit", *(word for file in files for word in ("--config", str(file)))]) == 0
    trained = SpeechLLM.from_run(tmp_path / "run")
    moved = [name for name, p in trained.llm.named_parameters() if "lora_B" in name and torch.count_nonzero(p)]
    assert moved

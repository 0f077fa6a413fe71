"""Runs of ``textkeep fit`` that were asked and measured while they trained, one for each way of tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from textkeep.cli.main import main

MeasuredRun = Callable[[str], Path]

LORA = {"r": 2, "targets": ["q_proj", "up_proj"]}
TUNINGS: dict[str, dict[str, Any]] = {
    "full": {"class_path": "FullFineTuning"},
    "lora": {"class_path": "LoRA", "init_args": LORA},
    "turns": {"class_path": "LoRA", "init_args": {**LORA, "gate": {"class_path": "SpeechTurns"}}},
    "positions": {"class_path": "LoRA", "init_args": {**LORA, "gate": {"class_path": "SpeechPositions"}}},
}
STEPS = 3
PROBED = 4
"""Examples of each probe, fewer than there are: the choice is a part of what is compared."""


@pytest.fixture(scope="session")
def talkative_llm_dir(tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLM with larger weights: what it says depends on what it is asked."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("talkative_llm")
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir)
    with torch.no_grad():
        for parameter in llm.parameters():
            parameter.mul_(1 if parameter.dim() == 1 else 10)
    llm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llm_dir).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def measured_run(
    tiny_settings: dict[str, Any], talkative_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> MeasuredRun:
    """Gives the run directory of a key of ``TUNINGS``; each is trained once."""
    made: dict[str, Path] = {}
    settings = {**tiny_settings, "model": {**tiny_settings["model"], "llm": str(talkative_llm_dir)}}

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = _fit(tmp_path_factory.mktemp(kind), settings, TUNINGS[kind])
        return made[kind]

    return run


def _fit(folder: Path, settings: dict[str, Any], tuning: dict[str, Any]) -> Path:
    """Three steps, so that what was learned shows in answers, losses and importance."""
    source = settings["data"]["val"][0]
    callbacks = [
        {"class_path": "Retention"},
        {"class_path": "ImportanceTracker", "init_args": {"replicates": 0}},
    ]
    trainer = {
        **settings["trainer"],
        "default_root_dir": str(folder / "run"),
        "logger": False,
        "max_steps": STEPS,
        "val_check_interval": 1,
        "callbacks": callbacks,
    }
    rate = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    probes = {
        name: {"source": source, "modality": name, "examples": PROBED, "batch_size": 3} for name in ("text", "speech")
    }
    config = {
        "seed_everything": 0,
        "trainer": trainer,
        "model": {**settings["model"], "optimizer": rate, "tuning": tuning, "max_new_tokens": 6},
        "data": {**settings["data"], "train_modalities": "both", "tokens_per_batch": 200, "probes": probes},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "run"

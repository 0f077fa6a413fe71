"""Fixtures of a tiny speech LLM, spoken questions and configs for them: what the verbs need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from textkeep.runs.study import jobs

from .processes import Textkeep, child_environment, command
from .study_children import CHILD

QUESTIONS = {"France": "Paris", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi", "Italy": "Rome", "Cuba": "Havana"}


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions with clips of noise."""
    folder = tmp_path_factory.mktemp("spoken")
    noise = np.random.default_rng(0)
    lines = []
    for number, (country, capital) in enumerate(QUESTIONS.items()):
        name = f"{number}.wav"
        soundfile.write(folder / name, 0.05 * noise.standard_normal(8000 + 800 * number), 16000)
        question = f"What is the capital of {country}?"
        lines.append({"id": f"q{number}", "question": question, "answers": [capital], "audio": name, "source": "t"})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@pytest.fixture(scope="session")
def tiny_settings(tiny_llm_dir: Path, tiny_whisper_dir: Path, tiny_manifest: Path) -> dict[str, Any]:
    """The settings of a run of three steps; tests change a copy."""
    manifest = str(tiny_manifest)
    return {
        "trainer": {"accelerator": "cpu", "max_steps": 3, "log_every_n_steps": 1, "num_sanity_val_steps": 0},
        "model": {
            "llm": str(tiny_llm_dir),
            "encoder": {"class_path": "WhisperEncoder", "init_args": {"source": str(tiny_whisper_dir)}},
            "adaptor": {"class_path": "ConcatMLP", "init_args": {"stack": 5, "hidden": 32}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
            "max_new_tokens": 4,
        },
        "data": {"train": [manifest], "val": [manifest], "test": [manifest], "predict": [manifest]},
    }


@pytest.fixture
def tiny_config(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    """``tiny.yaml`` in a fresh folder, with its run directory below it."""
    settings = {**tiny_settings, "trainer": {**tiny_settings["trainer"], "default_root_dir": str(tmp_path / "runs/t")}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def textkeep(tmp_path: Path) -> Textkeep:
    """Runs ``textkeep`` with these words in a fresh folder and home."""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words),
            cwd=tmp_path,
            env=child_environment(HOME=str(tmp_path), **environment),
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a plan into a folder of its own, which is made the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(CHILD)))
    (tmp_path / "base.yaml").write_text("trainer: {}\n")

    def write(**settings: Any) -> Path:
        whole = {"directory": "s", "configs": ["base.yaml"], "arms": {"full": None}, **settings}
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        return tmp_path / "plan.yaml"

    return write

"""Every strategy and objective of ``configs/`` on tiny models: trains, saves what it trained, and goes on exactly."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.overlays import OVERLAYS, overlay_name, prepare, tiny_overlay, words
from textkeep.cli.main import main
from textkeep.lightning_modules import SpeechLLM

CHECKPOINTS = {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 2, "save_top_k": -1}}


def losses(run: Path) -> dict[int, float]:
    """Step -> training loss, as logged."""
    with (run / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: overlay_name(path) if path else "quickstart")
def test_it_trains_and_goes_on_exactly(
    overlay: Path | None, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(overlay, tiny_settings)
    tiny = tiny_overlay(tiny_settings, tmp_path, 4, [CHECKPOINTS])
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert main(words(overlay, tiny, whole)) == 0
    shutil.copytree(whole, half, symlinks=True)
    (half / "metrics.csv").unlink()
    for name in ("step=000004.ckpt", "last.ckpt"):
        (half / "checkpoints" / name).unlink()
    assert main(words(overlay, tiny, half, "--ckpt_path", "last")) == 0

    first, second = losses(whole), losses(half)
    assert len(first) == 4
    assert second == {step: loss for step, loss in first.items() if step in second}
    assert sorted(second) == [1, 2, 3]  # counted from 0: a step is logged after its checkpoint
    states = [
        torch.load(run / "checkpoints/step=000004.ckpt", weights_only=True)["state_dict"] for run in (whole, half)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())

    model = SpeechLLM.from_run(whole)
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    kept = {id(tensor) for tensor in model.tuning.frozen_to_save(model.llm)}
    frozen = {
        name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad and id(p) not in kept
    }
    assert trained
    assert trained <= set(states[0])
    assert not frozen & set(states[0])


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS, ids=overlay_name)
def test_another_base_model_is_refused(
    overlay: Path,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(overlay, tiny_settings)
    tiny = tiny_overlay(tiny_settings, tmp_path, 1, [])
    run = tmp_path / "run"
    assert main(words(overlay, tiny, run)) == 0
    model = SpeechLLM.from_run(run)
    frozen = [name for name, p in model.llm.named_parameters() if not p.requires_grad and "base_layer" not in name]
    frozen = [name for name in frozen if "lora" not in name] or (
        [name for name, p in model.llm.named_parameters() if not p.requires_grad and "lora" not in name]
    )
    if not frozen:
        return  # all of the LLM is in the checkpoint
    llm = yaml.safe_load((run / "config.yaml").read_text())["model"]["llm"]
    other = AutoModelForCausalLM.from_pretrained(llm)
    with torch.no_grad():
        other.get_parameter(frozen[0].replace(".base_layer", "")).add_(1e-3)
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(llm).save_pretrained(tmp_path / "other")
    capsys.readouterr()
    config = str(run / "config.yaml")
    assert main(["validate", "--config", config, "--ckpt_path", "last", "--model.llm", str(tmp_path / "other")]) == 2
    assert "trained on other frozen weights" in capsys.readouterr().err

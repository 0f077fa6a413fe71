"""``textkeep export`` of a run that trained inserted layers: with them a deeper LLM, without them the untouched one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM

from textkeep.cli.main import main
from textkeep.lightning_modules import SpeechLLM

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def test_inserted_layers_stay_or_go(tiny_settings: dict[str, Any], tmp_path: Path, tiny_llm_dir: Path) -> None:
    trainer = {**tiny_settings["trainer"], "default_root_dir": str(tmp_path / "run"), "logger": False}
    rate = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.02}}
    model = {**tiny_settings["model"], "optimizer": rate, "tuning": {"class_path": "DepthUpScaling"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**tiny_settings, "trainer": trainer, "model": model}))
    assert main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0
    tuned = SpeechLLM.from_run(tmp_path / "run").llm(IDS).logits
    untouched = AutoModelForCausalLM.from_pretrained(tiny_llm_dir)(IDS).logits

    def exported(*words: str) -> tuple[int, torch.Tensor]:
        assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "out"), "--overwrite", *words]) == 0
        llm = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        return llm.config.num_hidden_layers, llm(IDS).logits

    layers, logits = exported()
    assert layers == 3
    assert torch.equal(logits, tuned)
    assert not torch.equal(tuned, untouched)
    layers, logits = exported("--alpha", "0")
    assert layers == 3
    assert torch.equal(logits, untouched)
    layers, logits = exported("--without-inserted")
    assert layers == 2
    assert torch.equal(logits, untouched)
    base = AutoModelForCausalLM.from_pretrained(tiny_llm_dir).state_dict()
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert kept.keys() == base.keys()
    assert all(torch.equal(tensor, base[name]) for name, tensor in kept.items())

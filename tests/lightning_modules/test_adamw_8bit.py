"""AdamW with moments in eight bits, named in a config: it trains, and a plan tells the bytes of its state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from textkeep.cli.main import main


def named_tensors(kept: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a parameter's state, also those that bitsandbytes puts into a dict of their own."""
    for name, value in kept.items():
        if torch.is_tensor(value):
            yield name, value
        elif isinstance(value, dict):
            yield from named_tensors(value)


@pytest.mark.slow
def test_moments_of_eight_bits_are_trained_saved_and_planned(
    tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    settings = yaml.safe_load(tiny_config.read_text())
    options = {"lr": 0.001, "min_8bit_size": 256}  # else matrices below 4096 weights keep 32 bits
    settings["model"]["optimizer"] = {"class_path": "bitsandbytes.optim.AdamW8bit", "init_args": options}
    tiny_config.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tiny_config)]) == 0
    (path,) = (tiny_config.parent / "runs/t/checkpoints").glob("step*.ckpt")
    saved = torch.load(path, weights_only=True)
    (optimizer,) = saved["optimizer_states"]
    tensors = [pair for kept in optimizer["state"].values() for pair in named_tensors(kept)]
    assert {torch.uint8, torch.float32} == {value.dtype for _, value in tensors}
    weights = sum(value.numel() for _, value in tensors if value.dtype == torch.uint8) / 2
    assert weights > 0.9 * sum(p.numel() for name, p in saved["state_dict"].items() if name.startswith("llm."))
    capsys.readouterr()
    assert main(["plan", str(tiny_config), "--seconds", "1", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["moments"][0]["parts"]["optimizer state"]
    own = sum(value.nbytes for name, value in tensors if "qmap" not in name)  # two maps are shared by all
    assert planned == pytest.approx(own, rel=0.1)

"""An encoder, an adaptor, a gate and a start of LoRA that the package does not know; and what it takes to add one."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

import textkeep.lightning_modules as package
from tests.support.processes import child_environment

ROOT = Path(package.__file__).parents[1]
ROOMS = ("callbacks", "cli", "datamodules", "evaluation", "inference", "lightning_modules", "runs")
CONTRACTS = (
    "Adaptor",
    "AdapterStart",
    "LayerRanks",
    "LayerRates",
    "Objective",
    "SpeechEncoder",
    "SpeechGate",
    "Tuning",
    "WeightMask",
)


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def parts() -> dict[str, type]:
    """The classes of the model's room that a config may name."""
    contracts = tuple(getattr(package, name) for name in CONTRACTS)
    return {
        name: value
        for module in modules()
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, contracts)
        and not inspect.isabstract(value)
    }


def test_every_part_stands_in_the_public_list() -> None:
    assert {"WhisperEncoder", "ConcatMLP", "SpeechTurns", "EVA"} <= set(parts())
    assert set(parts()) <= set(package.__all__)
    assert len(package.__all__) == len(set(package.__all__))


def named_in(path: Path) -> set[str]:
    """The strings and imported names of a file."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return strings | {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.parametrize("contract", ["SpeechEncoder", "Adaptor", "SpeechGate", "AdapterStart"])
def test_the_list_of_a_folder_is_the_only_one(contract: str) -> None:
    """No other file names a part: neither another list nor an import would have to be kept in step."""
    found = {name: part for name, part in parts().items() if issubclass(part, getattr(package, contract))}
    assert len(found) >= 2
    homes = {Path(inspect.getfile(part)) for part in found.values()}
    homes |= {home.with_name("__init__.py") for home in homes}
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path not in homes]
    assert len(files) > 100
    assert {path: named for path in files if (named := found.keys() & named_in(path))} == {}


OUTSIDE = "parts_of_mine"
"""A module that only the import path leads to; in a process of its own, so that no other test knows its classes."""

PROGRAM = """
import json, sys
from textkeep.cli.main import main
from textkeep.inference import load
assert main(["fit", "--config", "mine.yaml"]) == 0
model = load("outputs/mine", "cpu")
print(json.dumps([type(model.speech_llm.tuning.gate).__name__, model.ask(audio=sys.argv[1:])]))
"""


def test_parts_from_outside_are_fitted_and_used(
    tiny_settings: dict[str, Any], tiny_manifest: Path, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "tests/support/outside_parts.py", tmp_path / f"{OUTSIDE}.py")
    model = {
        **tiny_settings["model"],
        "encoder": {"class_path": f"{OUTSIDE}.LoudnessEncoder", "init_args": {"width": 6}},
        "adaptor": {"class_path": f"{OUTSIDE}.MeanAdaptor", "init_args": {"stack": 10}},
        "tuning": {
            "class_path": "LoRA",
            "init_args": {
                "r": 2,
                "gate": f"{OUTSIDE}.FirstClip",
                "start": {"class_path": f"{OUTSIDE}.ConstantStart", "init_args": {"value": 0.5}},
            },
        },
    }
    trainer = {**tiny_settings["trainer"], "max_steps": 2, "default_root_dir": "outputs/mine", "logger": False}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**tiny_settings, "trainer": trainer, "model": model}))
    clips = [str(tiny_manifest.parent / name) for name in ("0.wav", "1.wav")]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *clips],
        cwd=tmp_path,
        env=child_environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    gate, answers = json.loads(done.stdout.splitlines()[-1])
    assert gate == "FirstClip"
    assert len(answers) == 2
    saved = torch.load(tmp_path / "outputs/mine/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    weights = saved["state_dict"]
    assert weights["adaptor.output.weight"].shape == (32, 6)
    assert not any(name.startswith("encoder.") for name in weights)
    began = [tensor for name, tensor in weights.items() if ".lora_A." in name]
    assert len(began) == 14
    for tensor in began:  # two steps of AdamW move a weight by no more than twice the rate
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.5), atol=2.1e-3, rtol=0)
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if ".lora_B." in name)

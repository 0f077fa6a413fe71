"""An encoder, an adaptor, a gate and a start of LoRA that the package does not know; and what it takes to add one."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

import textkeep.lightning_modules as package
from tests.support import outside_parts
from textkeep.cli.main import main
from textkeep.inference import load

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


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that only the import path leads to."""
    shutil.copy(outside_parts.__file__, tmp_path / "parts_of_mine.py")
    monkeypatch.syspath_prepend(tmp_path)
    return "parts_of_mine"


def test_parts_from_outside_are_fitted_and_used(
    outside: str, tiny_settings: dict[str, Any], tiny_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = {
        **tiny_settings["model"],
        "encoder": {"class_path": f"{outside}.LoudnessEncoder", "init_args": {"width": 6}},
        "adaptor": {"class_path": f"{outside}.MeanAdaptor", "init_args": {"stack": 10}},
        "tuning": {
            "class_path": "LoRA",
            "init_args": {
                "r": 2,
                "gate": f"{outside}.FirstClip",
                "start": {"class_path": f"{outside}.ConstantStart", "init_args": {"value": 0.5}},
            },
        },
    }
    trainer = {**tiny_settings["trainer"], "max_steps": 2, "default_root_dir": "runs/mine", "logger": False}
    Path("mine.yaml").write_text(yaml.safe_dump({**tiny_settings, "trainer": trainer, "model": model}))
    assert main(["fit", "--config", "mine.yaml"]) == 0
    saved = torch.load("runs/mine/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    weights = saved["state_dict"]
    assert weights["adaptor.output.weight"].shape == (32, 6)
    assert not any(name.startswith("encoder.") for name in weights)
    began = [tensor for name, tensor in weights.items() if ".lora_A." in name]
    assert len(began) == 14
    for tensor in began:  # two steps of AdamW move a weight by no more than twice the rate
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.5), atol=2.1e-3, rtol=0)
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if ".lora_B." in name)

    again = load("runs/mine", "cpu")
    assert again.speech_llm is not None
    assert type(again.speech_llm.tuning.gate).__name__ == "FirstClip"
    answers = again.ask(audio=[tiny_manifest.parent / "0.wav", tiny_manifest.parent / "1.wav"])
    assert len(answers) == 2

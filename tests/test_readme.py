"""What the README tells a reader to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from textkeep import callbacks, datamodules, lightning_modules
from textkeep.cli.main import VERBS, load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"\btextkeep ([a-z]+\b[^`\n#]*)", README)))


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) > 10
    assert set(VERBS) <= {words.split()[0] for words in COMMANDS}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_exists(words: str) -> None:
    verb, *rest = words.split()
    assert callable(load(verb))
    configs = [word for word in rest if word.startswith("configs/")]
    assert all((ROOT / name).is_file() for name in configs)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", README))))
def test_a_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README))))
def test_a_config_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)h][^)]*)\)", README))))
def test_a_link_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_classes_in_its_yaml_exist() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)
    named = set(re.findall(r"class_path: (\w+)", "".join(blocks)))
    public = {*callbacks.__all__, *datamodules.__all__, *lightning_modules.__all__}
    assert named <= public
    assert {"ConcatMLP", "StackSwiGLU", "StackTransformer", "HFDataset", "LlamaOmniJSON"} <= public

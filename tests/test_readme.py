"""What the README tells a reader to type exists."""

from __future__ import annotations

import re
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tests.support.measured_runs import MeasuredRun
from textkeep import callbacks, datamodules, lightning_modules
from textkeep.cli.main import VERBS, load
from textkeep.inference import load as load_model

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


def test_its_python_runs(
    measured_run: MeasuredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured_run("turns")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/quickstart").symlink_to(run)
    soundfile.write(tmp_path / "question.wav", 0.1 * np.random.default_rng(0).standard_normal(9000), 16000)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 6
    capsys.readouterr()
    exec(code, {})
    written, spoken, loss, shares = capsys.readouterr().out.split("\n")[:4]
    model = load_model(run)
    assert (written, spoken) == (model.ask("What is the capital of Peru?"), model.ask(audio=tmp_path / "question.wav"))
    assert 0 < float(loss.removesuffix(" nats a token")) < 20
    assert sum(literal_eval(shares).values()) == pytest.approx(1)

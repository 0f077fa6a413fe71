"""What the README tells a reader to type exists."""

from __future__ import annotations

import json
import re
from ast import literal_eval
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from tests.support.measured_runs import MeasuredRun
from tests.support.tiny_encoders import save_waveform_encoder
from textkeep import callbacks, datamodules, lightning_modules
from textkeep.cli.main import VERBS, load, main
from textkeep.inference import load as load_model

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"\btextkeep ([a-z]+\b[^`\n#]*)", README + REFERENCE)))


def test_it_is_one_screen_that_sells() -> None:
    assert len(README.splitlines()) < 130
    for mark in ("picture", "figures"):  # what is put there belongs to one run of the quickstart
        assert README.count(f"<!-- {mark} of the quickstart: begin -->") == 1
        assert README.count(f"<!-- {mark} of the quickstart: end -->") == 1


def test_every_verb_is_in_the_reference() -> None:
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


def test_the_classes_in_its_yaml_exist() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)
    named = set(re.findall(r"class_path: (\w+)", "".join(blocks)))
    public = {*callbacks.__all__, *datamodules.__all__, *lightning_modules.__all__}
    assert named <= public
    assert {"ConcatMLP", "StackSwiGLU", "StackTransformer", "WhisperEncoder"} <= public


def models(page: str) -> list[dict[str, Any]]:
    """The models that a page shows as YAML."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [found["model"] for block in blocks if "model" in (found := yaml.safe_load(block))]


def test_its_own_model_runs_when_it_is_copied(
    tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the quickstart, as it stands but for the two names of the hub: no adaptor of another pair stays behind."""
    monkeypatch.chdir(tmp_path)
    (model,) = models("README.md")
    assert models("docs/another_model.md") == [model]
    model["llm"] = tiny_settings["model"]["llm"]
    model["encoder"]["init_args"]["source"] = str(save_waveform_encoder(tmp_path / "encoder", "WavLM"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": model, "data": tiny_settings["data"]}))
    files = (ROOT / "configs/quickstart.yaml", ROOT / "configs/debug/fast_dev_run.yaml", tmp_path / "mine.yaml")
    assert main(["fit", *(word for file in files for word in ("--config", str(file)))]) == 0


def test_its_figures_are_those_of_the_study() -> None:
    """tests/test_miniature_results.py and tests/test_text_lost.py hold these against the runs."""
    pages = [(ROOT / f"docs/results/{name}.md").read_text(encoding="utf-8") for name in ("study", "study_text_lost")]
    study = " ".join(" ".join(pages).split())
    said = (
        README.split("## Four findings")[1].split("## Try it")[0]
        + README.split("## Keeping the text")[1].split("Each is")[0]
    )
    told = " ".join(said.split())
    figures = re.findall(r"\d+\.\d+ \[-?[\d.]+, [\d.]+\]", told)
    assert len(figures) >= 9
    assert [figure for figure in figures if figure not in study] == []
    for words in ("34.8 % [26.0, 44.9]", "25.8 % [18.6, 35.3]", "0.203 nats [0.151, 0.255]"):
        assert words in told
        assert words in study
    for words in ("3.9 %", "0.047", "three seeds", "p 0.046; 0.28"):
        assert words in told
    assert "| 0.046 | 0.28 |" in study


def test_a_target_is_a_sentence() -> None:
    (line,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert set(json.loads(line)) == {"id", "question", "answers", "target", "audio"}


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

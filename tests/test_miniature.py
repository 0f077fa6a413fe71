"""The plan of the miniature study, and what it reads, are accepted as they stand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks.miniature.manual_text import CHARACTERS, ITEMS, paragraphs
from textkeep.cli.main import VERBS, main
from textkeep.preparation.assets.catalogue import CATALOGUE
from textkeep.runs.study.spec import read_study

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "miniature"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_plan_names_what_is_there() -> None:
    study = read_study(FOLDER / "study.yaml")
    assert study.reference == "full"
    assert len(study.arms) == 14
    assert all(len(values) >= 3 for arm in study.arms for values in arm.grid.values())
    rates = {"layer_rates", "layer_rates_uniform", "layer_rates_reversed", "layer_rates_permuted"}
    claims = rates | {"full", "lora_r8", "ewc", "l2sp", "distillation"}
    assert claims <= {arm.name for arm in study.arms if len(arm.seeds) >= 3}


def test_every_arm_is_a_config_that_the_command_line_takes(capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(FOLDER / "study.yaml")
    for arm in study.arms:
        words = [word for name in study.configs + arm.configs for word in ("--config", name)]
        words += [f"--{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in arm.settings.items()]
        with pytest.raises(SystemExit) as end:
            main(["fit", *words, "--print_config"])
        out, err = capsys.readouterr()
        assert end.value.code == 0, (arm.name, err)
        config = yaml.safe_load(out)
        assert config["trainer"]["max_steps"] == 60
        read = config["data"].get("init_args", config["data"])["train"]
        assert len(read) == 2, arm.name
        assert all(str(source).startswith(("spoken-facts/", "data/miniature/")) for source in read)


def test_the_preparation_is_a_shell_script_of_known_commands() -> None:
    script = FOLDER / "prepare.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    text = script.read_text()
    assert set(re.findall(r"textkeep (\w+) ", text)) <= set(VERBS)
    fetched = re.search(r"^textkeep assets (.+)$", text, re.MULTILINE)
    assert fetched is not None
    assert set(fetched[1].split()) <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "callback"),
    [("test.yaml", "Retention"), ("hearing.yaml", "Retention"), ("cascade.yaml", "EvaluationSuite")],
)
def test_its_tests_are_configs_that_the_command_line_takes(
    name: str, callback: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        word
        for config in (*read_study(FOLDER / "study.yaml").configs, str(FOLDER / name))
        for word in ("--config", config)
    ]
    with pytest.raises(SystemExit) as end:
        main(["test", *words, "--print_config"])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    assert callback in yaml.safe_load(out)["trainer"]["callbacks"][0]["class_path"]


def test_the_long_text_is_prose_of_one_length_and_always_the_same() -> None:
    found = paragraphs()
    assert len(set(found)) == ITEMS
    assert all(len(text) in CHARACTERS and "\n" not in text for text in found)
    assert found == paragraphs()

"""Every YAML file of configs/ is accepted by the real command line, and the overlays do what they say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from textkeep import lightning_modules
from textkeep.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
BASE = ROOT / "configs" / "quickstart.yaml"
LINE_WIDTH = 120


def is_overlay(path: Path) -> bool:
    return path.parent.name != "configs"


def layers(path: Path) -> list[str]:
    """The options that load a config as its header says: an overlay over the quickstart, another one alone."""
    base = ROOT / "configs" / "audio_llm.yaml" if path.parent.name == "audio_llms" else BASE
    files = [base, path] if is_overlay(path) else [path]
    return [word for file in files for word in ("--config", str(file))]


def printed(path: Path, capsys: pytest.CaptureFixture[str], verb: str = "fit") -> dict:
    with pytest.raises(SystemExit) as end:
        main([verb, *layers(path), "--print_config"])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    return yaml.safe_load(out)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_the_command_line_accepts_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(path, capsys)
    assert {"seed_everything", "trainer", "model", "data"} <= set(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_its_header_says_how_to_launch_it(path: Path) -> None:
    text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert text.startswith("# ")
    assert f"--config {path.relative_to(ROOT)}" in header
    assert all(len(line) <= LINE_WIDTH for line in text.splitlines())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_the_commands_in_its_comments_exist(path: Path) -> None:
    verbs = re.findall(r"(?:^#\s+|srun |`)textkeep (\w+)", path.read_text(), re.MULTILINE)
    files = re.findall(r"--config (configs/\S+)", path.read_text())
    assert set(verbs) <= set(VERBS)
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_the_quickstart_serves_the_other_verbs(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(BASE, capsys, verb)["model"]["llm"] == "asset:smollm2-135m-instruct"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "audio_llms").glob("*.yaml")), ids=lambda p: p.stem)
def test_an_audio_llm_hears_with_its_own_ear(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = printed(path, capsys)["model"]
    given = yaml.safe_load(path.read_text())["model"]
    assert model["ear"]["class_path"].endswith(".OwnEar")
    assert model["encoder"] is model["adaptor"] is model["adaptor_weights"] is None
    assert (model["llm"], model["base"]) == (given["llm"], given["base"])


def test_a_later_config_wins_and_leaves_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    base = printed(BASE, capsys)
    both = printed(ROOT / "configs" / "trainer" / "gpu_bf16.yaml", capsys)
    assert both["trainer"]["precision"] == "bf16-mixed"
    assert both["data"]["num_workers"] == 8
    assert both["data"]["probes"] == base["data"]["probes"]
    assert both["trainer"]["callbacks"] == base["trainer"]["callbacks"]


def test_tensorboard_is_added_to_the_default_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = printed(ROOT / "configs" / "logger" / "tensorboard.yaml", capsys)["trainer"]["logger"]
    names = [logger["class_path"].rsplit(".", 1)[1] for logger in loggers]
    assert names == ["RunCSVLogger", "ResilientWandbLogger", "TensorBoardLogger"]


def test_callbacks_can_be_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("trainer:\n  callbacks+:\n    - class_path: DeviceStatsMonitor\n")
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(BASE), "--config", str(extra), "--print_config"])
    callbacks = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert [c["class_path"].rsplit(".", 1)[1] for c in callbacks][-1] == "DeviceStatsMonitor"
    assert len(callbacks) == len(yaml.safe_load(BASE.read_text())["trainer"]["callbacks"]) + 1


def test_a_text_file_is_named_and_not_read_into_the_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """jsonargparse takes a file for a config where a class is allowed, and prose is a YAML string."""
    prose = tmp_path / "prose.txt"
    prose.write_text("They needed rugs.\n\nShe grew up with him.\n")
    name = str(prose)
    extra = tmp_path / "extra.yaml"
    source = {"source": name}
    given = {"train": name, "val": [name], "replay": source, "probes": {"p": source}, "sets": {"s": name}}
    extra.write_text(yaml.safe_dump({"data": given}))
    keys = ("data.train", "data.replay.source", "data.probes.p.source", "data.sets.s")
    for option in [["--config", str(extra)], *([f"--{key}", name] for key in keys)]:
        with pytest.raises(SystemExit):
            main(["fit", *layers(BASE), *option, "--print_config"])
        out = capsys.readouterr().out
        assert name in out
        assert "rugs" not in out


def arguments(owner: type) -> set[str]:
    """What a class can be built with; ``**options`` are those of its parent."""
    found = inspect.signature(owner).parameters.values()
    named = {p.name for p in found if p.kind is not p.VAR_KEYWORD}
    return named if len(named) == len(found) else named | arguments(owner.__bases__[0])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "tuning").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_tuning_overlay_takes_the_place_of_the_base(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another class leaves no option of the first one behind; the same class keeps what the overlay does not say."""
    wanted = yaml.safe_load(path.read_text())["model"]["tuning"]
    found = printed(path, capsys)["model"]["tuning"]
    owner = getattr(lightning_modules, wanted["class_path"])
    options = found.get("init_args", {})
    assert found["class_path"].rsplit(".", 1)[1] == wanted["class_path"]
    assert set(options) == arguments(owner)
    assert options.get("adaptor_lr", 0.0001) == wanted.get("init_args", {}).get("adaptor_lr", 0.0001)

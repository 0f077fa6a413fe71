"""The plan of the study of lost text: accepted as it stands, and rehearsed on tiny models."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.overlays import tiny_overlay
from textkeep.cli.main import VERBS, main
from textkeep.preparation.assets.catalogue import CATALOGUE
from textkeep.runs.report.study_data import StudyData, load_study
from textkeep.runs.report.tables.contrasts import contrast_table
from textkeep.runs.report.tables.differences import against_untouched
from textkeep.runs.report.tables.scores_by_arm import scores_table
from textkeep.runs.report.tables.shift import shift_table
from textkeep.runs.study.archive import unpack
from textkeep.runs.study.jobs import Job, fit_command, job_of, points
from textkeep.runs.study.jobs import test_command as command_of_test
from textkeep.runs.study.spec import Arm, Study, read_study
from textkeep.runs.study.state import JobState, StateStore

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "text_lost"
PROGRAM = 3  # words before the verb


@pytest.fixture
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def parsed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The config that a command makes of its words."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--print_config"])
    out, err = capsys.readouterr()
    assert end.value.code == 0, (words, err)
    return yaml.safe_load(out)


def different(arm: Arm) -> list[dict[str, Any]]:
    """Points of an arm's grid that differ in more than the rate, one each."""
    found = {point.get("config"): point for point in reversed(points(arm))}
    return list(found.values())


@pytest.mark.usefixtures("at_the_root")
def test_the_plan_asks_what_the_study_is_about() -> None:
    study = read_study(FOLDER / "study.yaml")
    assert all(len(arm.seeds) == 5 for arm in study.arms)
    assert all(len(values) == 3 for arm in study.arms for values in arm.grid.values())
    names = {arm.name for arm in study.arms}
    remedies = {
        "lora_r8",
        "lora_r64",
        "lora_gated",
        "ewc",
        "l2sp",
        "distillation",
        "replay",
        "budget_002",
        "budget_005",
    }
    profiles = {"layer_rates", "uniform", "permuted", "steep_rates", "steep_uniform", "steep_permuted"}
    assert names == {"full"} | remedies | profiles
    against = {pair[0] for pair in study.contrasts}
    assert against >= (remedies | {"layer_rates", "steep_rates"})
    assert study.selection is not None
    assert study.selection.then is not None
    assert study.keep_checkpoints == {"full"}  # interpolate.sh needs them


@pytest.mark.usefixtures("at_the_root")
def test_every_arm_is_a_config_that_the_command_line_takes(capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(FOLDER / "study.yaml")
    seen: dict[str, list[dict[str, Any]]] = {}
    for arm in study.arms:
        for point in different(arm):
            config = parsed(fit_command(study, job_of(study, arm, point, 3), resume=False)[PROGRAM:], capsys)
            rate = config["model"]["optimizer"]["init_args"]["lr"]
            assert rate == point["model.optimizer.init_args.lr"], arm.name
            assert config["seed_everything"] == 3
            seen.setdefault(arm.name, []).append(config)
    for name, weights in (("ewc", {1e3, 1e4, 1e5}), ("l2sp", {0.01, 0.1, 1.0})):
        assert {config["model"]["objectives"][1]["init_args"]["weight"] for config in seen[name]} == weights
    strengths = {
        name: re.findall(r"strength: ([\d.]+)", yaml.safe_dump(seen[name][0]["model"]["tuning"])) for name in seen
    }
    assert {name: found for name, found in strengths.items() if found} == {
        "layer_rates": ["0.4"], "uniform": ["0.4"], "permuted": ["0.4"],
        "steep_rates": ["0.9"], "steep_uniform": ["0.9"], "steep_permuted": ["0.9"],
    }  # fmt: skip
    assert seen["replay"][0]["data"]["replay"]["ratio"] == 0.3
    for name, budget in (("budget_002", 0.02), ("budget_005", 0.05)):
        assert seen[name][0]["trainer"]["callbacks"][-1]["init_args"]["max_increase"] == budget


@pytest.mark.usefixtures("at_the_root")
def test_the_pilot_is_a_plan_that_the_command_line_takes(capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(FOLDER / "pilot.yaml")
    for arm in study.arms:
        config = parsed(fit_command(study, job_of(study, arm, points(arm)[0], 0), resume=False)[PROGRAM:], capsys)
        assert config["trainer"]["enable_checkpointing"] is False
        assert config["model"]["optimizer"]["init_args"]["lr"] >= 0.0001


@pytest.mark.usefixtures("at_the_root")
def test_the_short_study_is_the_quickstart_five_times_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps and rates are the quickstart's own in every arm, those of its remedy for LoRA; only the remedy differs."""
    study = read_study(FOLDER / "short.yaml")
    makefile = (ROOT / "Makefile").read_text()
    for arm in study.arms:
        config = parsed(fit_command(study, job_of(study, arm, points(arm)[0], 3), resume=False)[PROGRAM:], capsys)
        lora = arm.name.startswith("lora")
        assert (config["trainer"]["max_steps"], len(arm.seeds), config["seed_everything"]) == (40, 5, 3)
        assert config["model"]["optimizer"]["init_args"]["lr"] == (0.0005 if lora else 0.0003), arm.name
        assert config["model"]["tuning"]["init_args"].get("adaptor_lr", 0.0001) == 0.0001, arm.name
        assert config["data"]["tokens_per_batch"] == 384
    assert "lora_gated_turns.yaml --model.optimizer.init_args.lr 0.0005" in makefile
    controls = {"full", "uniform", "steep_uniform"}
    assert {pair[0] for pair in study.contrasts} == {arm.name for arm in study.arms} - controls


@pytest.mark.usefixtures("at_the_root")
def test_what_is_read_to_choose_is_not_what_is_reported() -> None:
    """Plain text that chooses, steers or is probed is the probe's half; the test reads the other half."""
    told = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    reported = {"test.yaml", "short_test.yaml"}
    assert {name for name, text in told.items() if "plain-text/evaluation" in text} == reported
    assert not [name for name in reported if "plain-text/probe" in told[name]]


PILOT = {
    "text_lost_pilot": {
        ("full,lr=0.0005", "manual loss"): ("+0.695 [0.622, 0.767]", "+0.695 nats [0.622, 0.767]"),
        ("full,lr=0.0005", "prose loss"): ("+0.518 [0.314, 0.722]", "+0.518 [0.314, 0.722]"),
        ("full,lr=0.0005", "sentences T2T"): ("-4.69 [-13.7, 2.99]", "-4.7 points [-13.7, 3.0]"),
    },
    "text_lost_pilot_epoch": {
        ("epoch,lr=0.0002", "manual loss"): ("+0.176 [0.127, 0.225]", "+0.176 [0.127, 0.225]"),
        ("epoch,lr=0.0002", "prose loss"): ("-0.325 [-0.457, -0.194]", "-0.325 [-0.457, -0.194]"),
        ("epoch,lr=0.0002", "sentences T2T"): ("+2.36 [-3.98, 8.98]", "+2.4 points [-4.0, 9.0]"),
    },
}
"""Archive -> arm and measure -> what the report says, and how the document writes it."""


@pytest.fixture(scope="module")
def short_study(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    folder = tmp_path_factory.mktemp("short")
    unpack(ROOT / "docs/results/study/text_lost_short.tar.xz", folder / "study")
    return load_study(folder / "study")


def rows_of(document: str, columns: str) -> list[list[str]]:
    """Cells of the rows of a document's table, found by what its header begins with."""
    _, _, rest = document.partition(f"| {columns} |")
    lines = itertools.takewhile(lambda line: line.startswith("|"), rest.split("\n")[2:])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


RESULTS = ROOT / "docs/results/study_text_lost.md"
ARMS = {"untouched LLM, aligned adaptor": "untouched", "full fine-tuning": "full", "gated LoRA, r = 8": "lora_gated"}


def test_its_scores_are_those_of_the_page(short_study: StudyData) -> None:
    table = scores_table(short_study)
    found = {row[0]: row[1:] for row in table.rows}
    order = ["seeds", "T2T", "S2T", "general T2T", "general S2T", "sentences T2T", "plain loss", "manual loss"]
    places = [table.head.index(name) - 1 for name in order]
    shown = rows_of(RESULTS.read_text(encoding="utf-8"), "arm | seeds | written (T2T)")
    assert {ARMS[row[0]]: row[1:] for row in shown} == {
        arm: [found[arm][place] for place in places] for arm in ARMS.values()
    }


@pytest.mark.slow
def test_its_differences_are_those_of_the_page(short_study: StudyData) -> None:
    untouched, contrasts = against_untouched(short_study), contrast_table(short_study)
    assert untouched is not None
    assert contrasts is not None
    found = {(f"{row[0]} - untouched", row[1]): row[3:] for row in untouched.rows}
    found |= {(row[0], row[1]): row[3:] for row in contrasts.rows}
    shown = rows_of(RESULTS.read_text(encoding="utf-8"), "difference | measure")
    assert len(shown) == 11
    for pair, measure, *figures in shown:
        assert found[pair.replace("gated LoRA", "lora_gated"), measure] == figures, (pair, measure)


def test_its_shifts_are_those_of_the_page(short_study: StudyData) -> None:
    table = shift_table(short_study)
    assert table is not None
    found = {tuple(row[:3]): dict(zip(table.head, row, strict=True)) for row in table.rows}
    probes = {"plain text": "plain_text", "held-out questions": "heldout_text"}
    shown = rows_of(RESULTS.read_text(encoding="utf-8"), "probe | its loss, nats")
    assert len(shown) == 4
    for probe, loss, estimator, *figures, peak in shown:
        row = found["full", probes[probe], estimator.strip("`")]
        assert figures == [row[n] for n in ("JS distance", "noise alone", "shifted", "log total ratio")]
        assert loss in ("", row["loss, change"])
        assert (peak, row["peak layer"]) == ("0, stays", "0 to 0; +0")


@pytest.mark.parametrize("archive", PILOT)
def test_the_pilot_said_what_the_document_says(archive: str, tmp_path: Path) -> None:
    unpack(ROOT / f"docs/results/study/{archive}.tar.xz", tmp_path / "pilot")
    table = against_untouched(load_study(tmp_path / "pilot"))
    assert table is not None
    found = {(row[0], row[1]): row[3] for row in table.rows}
    text = (ROOT / "docs/results/study_text_lost.md").read_text(encoding="utf-8")
    for key, (reported, written) in PILOT[archive].items():
        assert found[key] == reported
        assert written in text


@pytest.mark.parametrize("name", ["prepare.sh", "interpolate.sh"])
def test_the_scripts_are_of_known_commands(name: str) -> None:
    subprocess.run(["sh", "-n", str(FOLDER / name)], check=True)
    assert set(re.findall(r"textkeep (\w+) ", (FOLDER / name).read_text())) <= set(VERBS)


def test_the_preparation_fetches_what_there_is() -> None:
    text = (FOLDER / "prepare.sh").read_text()
    fetched = re.search(r"^textkeep assets (.+)$", text, re.MULTILINE)
    assert fetched is not None
    assert set(fetched[1].split()) <= set(CATALOGUE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_is_rehearsed_on_tiny_models(
    tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fit and test with the plan's own callbacks and sets, of full fine-tuning and of an arm with a budget."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    study, tiny = read_study(FOLDER / "study.yaml"), rehearsal(tiny_settings, tmp_path)
    store, arms = StateStore(study.directory), {arm.name: arm for arm in study.arms}
    for name in ("full", "budget_005"):
        job = job_of(study, arms[name], points(arms[name])[0], 0)
        run(study, job, tiny)
        store.write(JobState(job.name, "finished", fitted=True, tested=True))
    (study.directory / "study.yaml").write_text(study.text)
    data = load_study(study.directory)
    labels = {measure.label for arm in data.trained for measure in arm.scores}
    assert {arm.name for arm in data.trained} == {"full", "budget_005"}
    assert labels >= {"T2T", "S2T", "plain loss", "manual loss", "prose loss", "general S2T", "general T2T"}
    assert labels >= {"sentences T2T", "rules T2T"}
    assert {pair[0] for pair in data.pairs} == {"plain_text", "heldout_text"}


def rehearsal(settings: dict[str, Any], folder: Path) -> dict[str, Path]:
    """What makes fit and test tiny: models, steps, and a few items of each set."""
    (folder / "data/text_lost").mkdir(parents=True)
    (folder / "data/text_lost/manual.txt").write_text("One passage of text.\n\nAnother passage of text.\n")
    fit = tiny_overlay(settings, folder, 5, [])
    whole = yaml.safe_load(fit.read_text())
    whole["trainer"].pop("callbacks")
    whole["data"].pop("probes")
    fit.write_text(yaml.safe_dump(whole))
    few = yaml.safe_load((FOLDER / "test.yaml").read_text())
    for evaluation in few["trainer"]["callbacks"][-1]["init_args"]["evaluations"].values():
        evaluation["init_args"]["limit"] = 2
        if "max_new_tokens" in evaluation["init_args"]:
            evaluation["init_args"]["max_new_tokens"] = 2
    (folder / "few.yaml").write_text(yaml.safe_dump(few))
    return {"fit": fit, "test": folder / "few.yaml"}


def run(study: Study, job: Job, tiny: dict[str, Path]) -> None:
    """Fits and tests a run of the plan with the tiny configs after the plan's."""
    small = ["--config", str(tiny["fit"]), "--trainer.val_check_interval=5"]
    assert main([*fit_command(study, job, resume=False)[PROGRAM:], *small]) == 0
    words = command_of_test(study, job)[PROGRAM:]
    assert main([*words, "--config", str(tiny["test"])]) == 0

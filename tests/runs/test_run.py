"""The one reader of run directories: what it gives, what it says of damage, and that it is the only one."""

from __future__ import annotations

import ast
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.report_run import write_removal, write_run
from textkeep.foundation import run_names
from textkeep.foundation.errors import UserError
from textkeep.importance import Snapshot
from textkeep.runs import Run

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    *("benchmarks", "callbacks", "cli", "datamodules", "evaluation", "foundation"),
    *("importance", "inference", "lightning_modules", "preparation", "runs"),
)
OWNED = ("metrics.csv", "summary.jsonl", "config.yaml", "checkpoints", "error.txt", "report.html", "wandb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "full", steps=(0, 10, 20), items=8, layers=3)


def test_every_part_is_what_its_file_says(folder: Path) -> None:
    write_removal(folder)
    run = Run.open(str(folder))
    with (folder / "metrics.csv").open() as file:
        logged = [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file) if row["train/loss"]]
    assert run.metrics["train/loss"] == logged
    assert run.metrics.last("train/loss") == logged[-1][1]
    assert run.metrics.last("never") is None
    assert list(run.metrics) == ["epoch", "train/loss"]
    assert run.metrics.columns == ("step", "epoch", "train/loss", "val/speech_ce", "val/text_ce")
    lines = [json.loads(line) for line in (folder / "importance/summary.jsonl").read_text().splitlines()]
    assert run.importance.of("speech", "fisher") == [
        line for line in lines if (line["probe"], line["estimator"]) == ("speech", "fisher")
    ]
    assert run.importance.probes == ["indomain_text", "heldout_text", "speech"]
    assert run.importance.estimators == ["taylor", "fisher"]
    assert run.importance.steps == [0, 10, 20]
    found = run.importance.snapshot("speech", 20)
    assert found is not None
    assert found.shares("taylor") == Snapshot.load(folder / "importance/speech/step=000020").shares("taylor")
    assert run.importance.snapshot("speech", 15) is None
    assert [row["increase"] for row in run.importance.removals[0]["rows"]] == [0.0, 3.0, 0.5, 0.01]
    rows = [json.loads(line) for line in (folder / "evaluation/summary.jsonl").read_text().splitlines()]
    assert list(run.evaluations) == ["val"]
    assert run.evaluations["val"].rows == rows
    assert run.evaluations["val"].steps == [0, 10, 20]
    records = [json.loads(line) for line in (folder / "evaluation/step=000010.jsonl").read_text().splitlines()]
    assert [record.id for record in run.evaluations["val"].predictions(10)] == [record["id"] for record in records]
    assert run.evaluations["val"].predictions(15) == []
    assert (run.planned_steps, run.last_step, run.notes, run.checkpoints) == (20, 20, [], [])


def test_checkpoints_come_with_the_newest_first_and_sets_by_name(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    for age, name in enumerate(("step=000020.ckpt", "step=000010.ckpt")):
        (folder / "checkpoints" / name).touch()
        os.utime(folder / "checkpoints" / name, (1000 - age, 1000 - age))
    (folder / "evaluation/prose").mkdir()
    (folder / "evaluation/test/manual").mkdir(parents=True)
    run = Run.open(folder)
    assert [path.name for path in run.checkpoints] == ["step=000020.ckpt", "step=000010.ckpt"]
    assert (run.sets("val"), run.sets("test")) == (["prose"], ["manual"])


def test_damage_is_a_note_and_the_rest_is_read(folder: Path) -> None:
    (folder / "config.yaml").write_text("trainer: [1]")
    with (folder / "metrics.csv").open("a") as file:
        file.write("21,0,much\n22,0,1.5\n23,0,1.")
    summary = folder / "importance/summary.jsonl"
    whole = summary.read_text().splitlines()
    summary.write_text("\n".join([whole[0][:-9], *whole[1:], '{"step": 30, "probe": "x", "estimator": "y"}']) + "\n")
    (folder / "importance/removal.json").write_text("[]")
    (folder / "weight_change.json").write_text("null and void")
    next((folder / "importance").glob("speech/step=000020/meta.json")).write_bytes(b"\xff")
    run = Run.open(folder)
    assert run.config == {}
    assert run.metrics["train/loss"][-1] == (22, 1.5)
    assert len(run.importance.measurements) == len(whole) - 1
    assert run.weight_change is None
    notes = {note.split(":")[0].split(" could")[0]: note for note in run.notes}
    assert notes["config.yaml"] == "config.yaml could not be read (trainer: a mapping is expected)"
    assert notes["metrics.csv"] == "metrics.csv: 1 damaged lines were left out"
    assert notes["importance/summary.jsonl"].startswith(
        "importance/summary.jsonl: 2 lines could not be read (summary.jsonl:1: not JSON"
    )
    assert {"importance/removal.json", "weight_change.json", "importance/speech/step=000020/meta.json"} <= set(notes)
    assert run.notes == list(dict.fromkeys(run.notes))


def test_a_run_that_goes_on_is_read_on(folder: Path) -> None:
    run = Run.open(folder)
    assert run.last_step == 20
    with (folder / "metrics.csv").open("a") as file:
        file.write("31,0,1.25,,\n")
    lines = (folder / "importance/summary.jsonl").read_text().splitlines()
    more = {**json.loads(lines[-1]), "step": 30}
    (folder / "importance/summary.jsonl").write_text("\n".join([*lines, json.dumps(more)]) + "\n")
    assert (run.last_step, run.importance.steps) == (20, [0, 10, 20])  # nothing moves under a reader's hands
    run.refresh()
    assert (run.last_step, run.importance.steps) == (31, [0, 10, 20, 30])


def test_a_finished_run_is_at_its_end(folder: Path) -> None:
    """Steps are logged from 0: the last logged one of 40 is 39 at most."""
    (folder / "finished.json").write_text('{"step": 40}')
    assert Run.open(folder).last_step == 40


def test_a_file_that_became_shorter_is_read_from_its_start(folder: Path) -> None:
    run = Run.open(folder)
    assert len(run.metrics["train/loss"]) == 20
    with (folder / "metrics.csv").open("r+") as file:  # the same inode
        file.truncate(0)
        file.write("step,train/loss\n1,2.5\n")
    run.refresh()
    assert dict(run.metrics) == {"train/loss": [(1, 2.5)]}


def test_what_is_no_run_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds none of config\.yaml, metrics\.csv, importance, evaluation"):
        Run.open(tmp_path)
    with pytest.raises(UserError, match="does not exist; allowed: the directory of a run"):
        Run.open(tmp_path / "gone")


def named_paths(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings that name a file of a run: alone or as a part of a path, docstrings and prose aside."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in prose and set(text.split("/")) & set(OWNED):
            yield node.lineno, text


def test_file_names_of_a_run_stand_in_one_file() -> None:
    """``wandb`` is a module, a kind of logger and a name inside a Vega chart too: there it is no path."""
    no_path = (
        "sys.modules.get(",
        'find_spec("wandb")',
        '"data": {"name": "wandb"}',
        'import_module("wandb")',
        '__module__.partition(".")[0] == "wandb"',
    )
    found = []
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for number, name in named_paths(ast.parse(text)):
            if not any(words in lines[number - 1] for words in no_path):
                found.append((path.relative_to(ROOT).as_posix(), name))
    here = [name for path, name in found if path == "foundation/run_names.py"]
    assert sorted(here) == sorted(OWNED)
    assert [entry for entry in found if entry[0] != "foundation/run_names.py"] == []
    assert set(OWNED) <= {value for value in vars(run_names).values() if isinstance(value, str)}


def test_keys_of_metrics_are_made_in_one_file() -> None:
    starts = ("train/", "val/", "test/", "forgetting/", "misalignment/", "importance_media/", "lr-", "llm.", "layer_")
    found = set()
    for path in (path for room in ("callbacks", "runs", "evaluation") for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in prose else None
            if isinstance(text, str) and text.startswith(starts):
                found.add((path.relative_to(ROOT).as_posix(), text))
    assert found == {("runs/dashboard/workspace.py", r"layer_\d+")}


def test_keys_are_those_of_every_run_so_far() -> None:
    assert run_names.stage_key("val", run_names.cross_entropy("speech")) == "val/speech_ce"
    assert run_names.stage_key("val/prose", "text_loss") == "val/prose/text_loss"
    assert run_names.importance_key("speech", "taylor", "js") == "importance/speech/taylor/js"
    assert run_names.probe_key("speech", "loss") == "importance/speech/loss"
    assert run_names.importance_picture("speech", "heat_map") == "importance_media/speech/heat_map"
    assert [run_names.layer_label(7, layers) for layers in (8, 80, 120)] == ["layer_07", "layer_07", "layer_007"]
    assert [run_names.layer_number(label) for label in ("layer_07", "layer_117")] == [7, 117]
    assert [run_names.layer_group(layer) for layer in (7, 117)] == ["llm.07", "llm.117"]

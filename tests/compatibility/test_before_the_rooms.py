"""Runs that version 0.1 made before its parts were moved into rooms: every verb still reads them.

``before_the_rooms.tar.xz`` holds two runs of four steps (full fine-tuning; LoRA behind a gate, with distillation) with
the tiny models and clips that they were made of. What they gave when the old code went on with them stands below.
"""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pytest

from textkeep.cli.main import main
from textkeep.inference import load
from textkeep.runs import open_runs

ARCHIVE = Path(__file__).with_name("before_the_rooms.tar.xz")

CONTINUED = {"full": [4.702966690063477, 4.700798511505127], "lora": [5.727564811706543, 5.620378494262695]}
"""Training losses of steps 4 and 5, when the old code went on from ``last`` to step 6."""
TESTED = {"test/text_ce": 4.702966690063477, "test/speech_ce": 4.69253396987915}
"""Of the full run."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def column(path: Path, name: str) -> list[float]:
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_run_goes_on_as_it_did(folder: Path, kind: str) -> None:
    more = ["--ckpt_path", "last", "--trainer.max_steps", "6"]
    assert main(["fit", "--config", f"runs/{kind}/config.yaml", *more]) == 0
    assert column(folder / f"runs/{kind}/metrics.csv", "train/loss")[-2:] == pytest.approx(CONTINUED[kind], rel=1e-4)


@pytest.mark.slow
def test_a_checkpoint_is_tested_as_it_was(folder: Path) -> None:
    assert main(["test", "--config", "runs/full/config.yaml", "--ckpt_path", "last"]) == 0
    for name, value in TESTED.items():
        assert column(folder / "runs/full/test_metrics.csv", name)[-1] == pytest.approx(value, rel=1e-4)


def test_its_files_are_read(folder: Path) -> None:
    full, lora = open_runs([folder / "runs/full", folder / "runs/lora"])
    assert full.config["model"]["tuning"] is None
    assert lora.config["model"]["tuning"]["class_path"] == "textkeep.lightning_modules.LoRA"
    assert main(["report", "runs/full", "runs/lora"]) == 0
    assert "runs/full" in (folder / "runs/full/comparison.html").read_text()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_its_weights_are_used(folder: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(f"runs/{kind}", "cpu")
    assert model.origin.run == (folder / "runs" / kind).resolve()
    records = [json.loads(line) for line in (folder / f"runs/{kind}/evaluation/step=000004.jsonl").open()]
    written = {record["id"]: record["prediction"] for record in records if record["modality"] == "speech"}
    clips = [folder / "data" / f"{identity.removeprefix('q')}.ogg" for identity in written]
    assert model.ask(audio=clips) == list(written.values())

"""`make quickstart`, with a stand-in for `textkeep` that writes down what it is asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.measured_runs import MeasuredRun
from textkeep.cli.main import main

ROOT = Path(__file__).parents[2]

STAND_IN = """#!/bin/sh
# Makes what a fit makes: a directory of its own, beside those of earlier runs.
echo "$@" >> calls
[ "$1" = fit ] || exit 0
name=$(echo "$@" | sed -n 's/.*default_root_dir \\([^ ]*\\).*/\\1/p'); run=${name:-outputs/quickstart}; number=2
while [ -d "$run" ]; do run=${name:-outputs/quickstart}-$number; number=$((number + 1)); done
mkdir -p "$run"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "textkeep").write_text(STAND_IN)
    (binaries / "textkeep").chmod(0o755)
    for mark in (".torch", ".installed"):
        (tmp_path / ".venv" / mark).touch()
    return tmp_path


def made(folder: Path) -> tuple[list[str], str]:
    (folder / "calls").unlink(missing_ok=True)
    done = subprocess.run(["make", "quickstart"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "calls").read_text().splitlines(), done.stdout


def test_it_trains_tests_and_reports_two_runs(folder: Path) -> None:
    calls, said = made(folder)
    verbs = ["assets", "fit", "fit", "test", "importance", "test", "importance", "report"]
    assert [call.split()[0] for call in calls] == verbs
    assert calls[1] == "fit --config configs/quickstart.yaml"
    assert "--config configs/tuning/lora_gated_turns.yaml" in calls[2]
    full, gated = "outputs/quickstart", "outputs/quickstart-gated"
    for run, tested, verified in ((full, *calls[3:5]), (gated, *calls[5:7])):
        assert tested.startswith(f"test --config {run}/config.yaml --ckpt_path last")
        assert verified.startswith(f"importance verify {run} ")
    assert calls[7] == f"report {full} {gated}"
    assert "seconds: set-up " in said


def test_its_check_of_importance_can_be_made_of_the_remedy(folder: Path, measured_run: MeasuredRun) -> None:
    """On tiny models: LoRA behind a gate has matrices of its own, and a report without a check calls it unverified."""
    calls, _ = made(folder)
    run = shutil.copytree(measured_run("turns"), folder / "turns")
    assert main(["importance", "verify", str(run), *calls[6].split()[3:]]) == 0
    (record,) = (run / "importance" / "verification").glob("*.json")
    assert json.loads(record.read_text())["granularity"] == "layer"


def test_made_again_it_is_about_the_new_runs(folder: Path) -> None:
    made(folder)
    calls, said = made(folder)
    assert calls[-1] == "report outputs/quickstart-2 outputs/quickstart-gated-2"
    assert "runs:    outputs/quickstart-2 outputs/quickstart-gated-2" in said


def test_the_config_tells_the_same_two_fits(folder: Path) -> None:
    """Whoever types the commands of its header gets what `make quickstart` gives."""
    calls, _ = made(folder)
    header = (ROOT / "configs/quickstart.yaml").read_text().replace("\\\n#", " ")
    told = [" ".join(line.split()) for line in re.findall(r"^#   textkeep (fit .*)$", header, re.MULTILINE)]
    assert told == [call for call in calls if call.startswith("fit")]

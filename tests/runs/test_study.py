"""The study runner with real child processes that train nothing (study_child.py)."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.study_children import CHILD, GRID, states, wait_for
from textkeep.cli.main import main
from textkeep.foundation.run_names import lock_name
from textkeep.runs.launch import Launch
from textkeep.runs.run_lock import RunLock
from textkeep.runs.study import jobs
from textkeep.runs.study.child import run_job
from textkeep.runs.study.jobs import job_of
from textkeep.runs.study.running import keep_plan
from textkeep.runs.study.spec import STUDY_FILE, read_study
from textkeep.runs.study.state import StateStore
from textkeep.runs.study.stopping import Stop


def test_arms_seeds_and_grids_run_and_the_best_point_goes_on(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = {"metric": "val/speech_accuracy", "mode": "max"}
    path = plan(seeds=[0, 1], arms={"full": GRID, "plain": {"seeds": [5]}}, selection=selection)
    assert main(["study", str(path)]) == 0
    found = states(tmp_path / "s")
    assert set(found) == {
        "untouched",
        "full,lr=0.1,seed=0",
        "full,lr=0.3,seed=0",
        "full,lr=0.2,seed=0",
        "full,lr=0.3,seed=1",
        "plain,seed=5",
    }
    assert {state["status"] for state in found.values()} == {"finished"}
    assert json.loads((tmp_path / "s/selection.json").read_text())["full"]["chosen"] == {"model.lr": 0.3}
    assert (tmp_path / "s/runs/full,lr=0.3/seed=1/evaluation/test/step=000004.jsonl").is_file()
    assert (tmp_path / "s/runs/untouched-test/evaluation/test").is_dir()
    # The test questions are for what was chosen on validation: one run of the grid comes back for them.
    assert {name for name, state in found.items() if not state["tested"]} == {
        "full,lr=0.1,seed=0",
        "full,lr=0.2,seed=0",
    }
    assert not (tmp_path / "s/runs/full,lr=0.2/seed=0/evaluation/test").exists()
    out = capsys.readouterr().out
    assert "[1/7] untouched: running" in out
    assert "[5/7] full,lr=0.3,seed=0: continuing" in out
    assert out.index("full,lr=0.3,seed=1: running") < out.index("plain,seed=5: running")  # whole arms first
    assert "6 of 6 runs finished" in out
    # Again: nothing is left to do.
    before = states(tmp_path / "s")
    assert main(["study", str(path)]) == 0
    assert "running" not in capsys.readouterr().out
    assert states(tmp_path / "s") == before


def test_checkpoints_go_when_nothing_is_left_to_do_with_them(plan: Any, tmp_path: Path) -> None:
    arms = {"full": GRID, "bad": {"set": {"model.broken": True}}, "plain": None}
    selection = {"metric": "val/speech_accuracy", "mode": "max"}
    path = plan(arms=arms, selection=selection, untouched=False, keep_checkpoints=False)
    assert main(["study", str(path)]) == 1
    assert {state["tested"] for name, state in states(tmp_path / "s").items() if "lr=0.3" in name} == {True}
    assert not list((tmp_path / "s").rglob("*.ckpt"))
    # What was measured stays, and a second start has only the failed run to do.
    assert (tmp_path / "s/runs/full,lr=0.2/seed=0/metrics.csv").is_file()
    assert main(["study", str(path)]) == 1
    assert {name: state["attempts"] for name, state in states(tmp_path / "s").items()}["plain,seed=0"] == 1


def test_the_tested_runs_of_an_arm_that_is_named_keep_their_checkpoints(plan: Any, tmp_path: Path) -> None:
    selection = {"metric": "val/speech_accuracy", "mode": "max"}
    arms = {"full": {**GRID, "seeds": [0, 1]}, "lora": GRID, "plain": None, "other": None}
    path = plan(arms=arms, selection=selection, untouched=False, keep_checkpoints=["full", "plain"])
    assert main(["study", str(path)]) == 0
    runs = tmp_path / "s/runs"
    kept = {str(found.parents[1].relative_to(runs)) for found in runs.rglob("*.ckpt")}
    assert kept == {"full,lr=0.3/seed=0", "full,lr=0.3/seed=1", "plain/seed=0"}


def test_a_failed_arm_does_not_stop_the_rest_and_is_tried_again(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plan(arms={"bad": {"set": {"model.broken": True}}, "full": None}, untouched=False)
    assert main(["study", str(path)]) == 1
    out = capsys.readouterr().out
    said = "textkeep: error: model.broken: true; allowed: false (exit code 2)"
    assert f"failed: bad,seed=0: {said}; log: s/logs/bad,seed=0.log" in out
    assert "1 of 2 runs finished" in out
    assert states(tmp_path / "s")["full,seed=0"]["status"] == "finished"
    path = plan(arms={"bad": {"set": {"model.broken": False}}, "full": None}, untouched=False)
    assert main(["study", str(path)]) == 0
    found = states(tmp_path / "s")
    assert (found["bad,seed=0"]["status"], found["bad,seed=0"]["attempts"]) == ("finished", 2)
    assert found["full,seed=0"]["attempts"] == 1
    assert "was changed since" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_goes_on_from_the_checkpoint(plan: Any, tmp_path: Path, number: signal.Signals) -> None:
    path = plan(arms={"full": {"set": {"seconds": 0.5}}, "later": None}, untouched=False)
    program = (  # a shell that starts the tests in its background has SIGINT ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from textkeep.runs.study import jobs; jobs.PROGRAM = (sys.executable, sys.argv[1]);"
        "from textkeep.cli.main import main; sys.exit(main(['study', sys.argv[2]]))"
    )
    words = [sys.executable, "-c", program, str(CHILD), str(path)]
    starts = tmp_path / "s/runs/full/seed=0/starts.txt"
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: starts.is_file())
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "continues from here" in out
    assert states(tmp_path / "s")["full,seed=0"]["status"] == "interrupted"
    assert "later,seed=0" not in states(tmp_path / "s")
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "full,seed=0: continuing" in again.stdout
    assert starts.read_text().split() == ["1", "2", "3", "4"]  # no step twice
    assert {s["status"] for s in states(tmp_path / "s").values()} == {"finished"}


def test_a_killed_attempt_without_a_checkpoint_begins_again_in_its_directory(plan: Any, tmp_path: Path) -> None:
    path = plan(untouched=False)
    left = tmp_path / "s/runs/full/seed=0"
    left.mkdir(parents=True)
    (left / "config.yaml").write_text("trainer: {}\n")
    (tmp_path / "s/study.yaml").write_text(path.read_text())
    assert main(["study", str(path)]) == 0
    assert (left / "checkpoints/step=000004.ckpt").is_file()
    assert [path.name for path in left.parent.iterdir()] == ["seed=0"]


def test_a_directory_in_which_another_process_writes_is_left_alone(plan: Any, tmp_path: Path) -> None:
    """A study that was carried here without checkpoints trains again in the same directory, if nobody else does."""
    path = plan(untouched=False)
    assert main(["study", str(path)]) == 0
    run = tmp_path / "s/runs/full/seed=0"
    shutil.rmtree(run / "checkpoints")
    (run / "finished.json").write_text('{"step": 4}')
    state = tmp_path / "s/state/full,seed=0.json"
    state.write_text(state.read_text().replace('"finished"', '"interrupted"'))
    lock = RunLock(run / lock_name("fit"), Launch.of())
    lock.acquire()
    assert main(["study", str(path)]) == 1
    lock.release()
    assert "is being written by process" in states(tmp_path / "s")["full,seed=0"]["error"]
    assert (run / "metrics.csv").is_file()
    assert main(["study", str(path)]) == 0
    assert (run / "starts.txt").read_text().split() == ["1", "2", "3", "4"]


def test_two_processes_do_not_run_one_arm(plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plan(arms={"full": None, "lora": None})
    (tmp_path / "s").mkdir()
    with (tmp_path / "s/.lock.full").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["study", str(path)]) == 2
        assert "another process runs full of s" in capsys.readouterr().err
        assert main(["study", str(path), "--arms", "lora", "untouched"]) == 0
    assert set(states(tmp_path / "s")) == {"untouched", "lora,seed=0"}
    assert "2 of 2 runs finished" in capsys.readouterr().out


def test_processes_at_arms_of_their_own_leave_one_selection(plan: Any, tmp_path: Path) -> None:
    selection = {"metric": "val/speech_accuracy", "mode": "max"}
    path = plan(arms={"full": GRID, "lora": GRID}, selection=selection)
    for arm in ("lora", "full"):
        assert main(["study", str(path), "--arms", arm]) == 0
    assert set(json.loads((tmp_path / "s/selection.json").read_text())) == {"full", "lora"}
    assert not any(name.startswith("untouched") for name in states(tmp_path / "s"))


def test_processes_that_start_at_once_leave_one_plan(plan: Any, tmp_path: Path) -> None:
    path = plan()
    study = read_study(path)
    study.directory.mkdir()
    (study.directory / STUDY_FILE).write_text("directory: s\n")
    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("fork")) as processes:
        for kept in [processes.submit(keep_plan, study, path) for _ in range(400)]:
            kept.result()  # would raise what the process raised
    assert (study.directory / STUDY_FILE).read_text() == path.read_text()


def test_a_run_has_a_service_of_its_own(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is shared holds the run of the fit when its test wants to go on with it."""
    study = read_study(plan())
    told = "import os, sys; sys.exit(os.environ.get('WANDB_SERVICE', 'none of mine') + os.environ['OTHER'])"
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-c", told))
    monkeypatch.setenv("WANDB_SERVICE", "of the parent")
    monkeypatch.setenv("OTHER", ", kept")
    state = run_job(study, job_of(study, study.arms[0], {}, 0), StateStore(study.directory), Stop({}))
    assert state.error == "none of mine, kept (exit code 1)"

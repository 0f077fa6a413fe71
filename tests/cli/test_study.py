"""The study runner with real child processes that train nothing (study_child.py), and with real ones (slow)."""

from __future__ import annotations

import copy
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from textkeep.cli.main import main
from textkeep.cli.study import jobs
from textkeep.cli.study.command import _keep_plan
from textkeep.cli.study.jobs import fit_command, job_of, points, variant_name
from textkeep.cli.study.jobs import test_command as command_of_test
from textkeep.cli.study.progress import Progress, duration
from textkeep.cli.study.slurm import run_on_slurm
from textkeep.cli.study.spec import STUDY_FILE, read_study
from textkeep.cli.study.state import StateStore

from .conftest import child_environment, command

CHILD = Path(__file__).with_name("study_child.py")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a plan into a folder of its own, which is made the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(CHILD)))
    (tmp_path / "base.yaml").write_text("trainer: {}\n")

    def write(**settings: Any) -> Path:
        whole = {"directory": "s", "configs": ["base.yaml"], "arms": {"full": None}, **settings}
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        return tmp_path / "plan.yaml"

    return write


def states(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "state").glob("*.json")}


GRID = {"grid": {"model.lr": [0.1, 0.3, 0.2]}}


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
        "from textkeep.cli.study import jobs; jobs.PROGRAM = (sys.executable, sys.argv[1]);"
        "from textkeep.cli.main import main; sys.exit(main(['study', sys.argv[2]]))"
    )
    words = [sys.executable, "-c", program, str(CHILD), str(path)]
    starts = tmp_path / "s/runs/full/seed=0/starts.txt"
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: starts.is_file())
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "goes on from here" in out
    assert states(tmp_path / "s")["full,seed=0"]["status"] == "interrupted"
    assert "later,seed=0" not in states(tmp_path / "s")
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "full,seed=0: continuing" in again.stdout
    assert starts.read_text().split() == ["1", "2", "3", "4"]  # no step twice
    assert {s["status"] for s in states(tmp_path / "s").values()} == {"finished"}


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_a_killed_attempt_left_without_a_checkpoint_is_thrown_away(plan: Any, tmp_path: Path) -> None:
    path = plan(untouched=False)
    left = tmp_path / "s/runs/full/seed=0"
    left.mkdir(parents=True)
    (left / "config.yaml").write_text("trainer: {}\n")
    (tmp_path / "s/study.yaml").write_text(path.read_text())
    assert main(["study", str(path)]) == 0
    assert (left / "checkpoints/step=000004.ckpt").is_file()


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
        for kept in [processes.submit(_keep_plan, study, path) for _ in range(400)]:
            kept.result()  # would raise what the process raised
    assert (study.directory / STUDY_FILE).read_text() == path.read_text()


def test_an_unknown_arm_is_refused(plan: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = plan()
    assert main(["study", str(path), "--arms", "fll"]) == 2
    assert "study: --arms: 'fll' (allowed: untouched, full)" in capsys.readouterr().err
    assert main(["study", str(path), "--arms", "untouched", "--dry-run"]) == 0


def test_a_directory_with_something_else_is_refused(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/thesis.tex").write_text("")
    assert main(["study", str(plan())]) == 2
    assert "holds something else" in capsys.readouterr().err


def test_the_commands_hold_all_settings_in_their_order(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "lora.yaml").write_text("model: {}\n")
    arm = {"configs": ["lora.yaml"], "set": {"a": [1, 2], "b": "x"}, **GRID}
    study = read_study(plan(set={"a": 0, "trainer.max_steps": 4}, arms={"lora": arm}, test_configs=["base.yaml"]))
    job = job_of(study, study.arms[0], {"model.lr": 1e-05}, 7)
    assert job.name == "lora,lr=1e-05,seed=7"
    words = fit_command(study, job, resume=False)[2:]
    assert words == [
        "fit", "--config", "base.yaml", "--config", "lora.yaml", "--a=[1, 2]", "--trainer.max_steps=4", "--b=x",
        "--model.lr=1e-05", "--seed_everything=7", "--data.seed=7",
        "--trainer.default_root_dir=s/runs/lora,lr=1e-05/seed=7",
    ]  # fmt: skip
    assert fit_command(study, job, resume=True)[-2:] == ["--ckpt_path", "last"]
    tested = command_of_test(study, job)[2:]
    assert tested[:5] == ["test", "--config", "s/runs/lora,lr=1e-05/seed=7/config.yaml", "--config", "base.yaml"]
    assert tested[-2:] == ["--ckpt_path", "last"]


def test_points_are_all_combinations_and_their_names_fit_for_folders(plan: Any) -> None:
    grid = {"model.lr": [1, 2], "model.tuning.rank": [8], "data.rank": [4]}
    study = read_study(plan(arms={"a": {"grid": grid}}))
    assert len(points(study.arms[0])) == 2
    name = variant_name("a", points(study.arms[0])[1])
    assert name == "a,lr=2,model.tuning.rank=8,data.rank=4"
    assert "/" not in variant_name("a", {"x.y": "b/c d"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": {}}, "arms: None (allowed: a name and settings for each arm)"),
        ({"arms": {"a b": None}}, "arms: 'a b' (allowed: letters"),
        ({"arms": {"untouched": None}}, "a name that is not untouched"),
        ({"arms": {"a": {"rank": 8}}}, "arms.a: 'rank' (allowed: configs, set, seeds, grid)"),
        ({"arms": {"a": {"grid": {"x": 3}}}}, "arms.a.grid.x: 3 (allowed: a list of values)"),
        ({"arms": {"a": {"configs": ["no.yaml"]}}}, "arms.a.configs: 'no.yaml' (allowed: an existing file"),
        ({"configs": []}, "arms.full.configs: None (allowed: a config file"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] (allowed: a list of different whole numbers)"),
        ({"reference": "lora"}, "reference: 'lora' (allowed: one of the arms full)"),
        ({"sedes": [1]}, "the file: 'sedes' (allowed: directory, configs"),
        (
            {"selection": {"metric": "test/x"}, "arms": {"a": GRID}},
            "selection.metric: 'test/x' (allowed: a metric of val",
        ),
        ({"selection": {"metric": "val/x"}}, "(allowed: only where an arm has a grid)"),
        ({"test": "yes"}, "test: 'yes' (allowed: true or false)"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(
    plan: Any, settings: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(plan(**settings))]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_dry_run_shows_what_would_run_and_leaves_nothing(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(plan(arms={"full": GRID})), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "full,lr=0.3,seed=0" in out
    assert "fit --config base.yaml" in out
    assert not (tmp_path / "s").exists()


def test_durations() -> None:
    assert [duration(s) for s in (45, 89.6, 600, 5400, 11100)] == ["45 s", "90 s", "10 min", "1 h 30 min", "3 h 05 min"]


def test_slurm_without_slurm_is_said_in_one_line(
    plan: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["study", str(plan(slurm={"timeout_min": 5}))]) == 2
    assert "study: slurm:" in capsys.readouterr().err


# ---------------------------------------------------------------------- slow: real runs of tiny models


@pytest.fixture
def real_plan(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Full fine-tuning, adaptor only, and an arm that cannot be."""
    settings = copy.deepcopy(tiny_settings)
    settings["trainer"] |= {"callbacks": [{"class_path": "Retention"}], "max_steps": 150, "enable_progress_bar": False}
    settings["trainer"] |= {"check_val_every_n_epoch": None, "val_check_interval": 50}
    settings["data"]["tokens_per_batch"] = 80
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(settings))
    arms = {
        "full": None,
        "broken": {"set": {"model.tuning": "NoSuchTuning"}},
        "adaptor": {"set": {"model.tuning": "AdaptorOnly"}},
    }
    plan = {"directory": "s", "configs": ["base.yaml"], "arms": arms, "seeds": [0]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return tmp_path / "plan.yaml"


@pytest.mark.slow
def test_a_study_of_real_runs_is_interrupted_continued_and_reported(real_plan: Path, tmp_path: Path) -> None:
    environment = child_environment(HOME=str(tmp_path), PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    words = command("study", real_plan)
    run = tmp_path / "s/runs/full/seed=0"
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "metrics.csv").is_file(), 240)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 130, out
    assert states(tmp_path / "s")["full,seed=0"]["status"] == "interrupted"
    stopped = [path for path in (run / "checkpoints").glob("step=*.ckpt") if not path.is_symlink()]
    assert stopped
    again = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=290)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "full,seed=0: continuing" in again.stdout
    assert "failed: broken,seed=0: textkeep: error:" in again.stdout
    found = {name: state["status"] for name, state in states(tmp_path / "s").items()}
    assert found == {
        "untouched": "finished",
        "full,seed=0": "finished",
        "broken,seed=0": "failed",
        "adaptor,seed=0": "finished",
    }
    assert (run / "checkpoints/last.ckpt").resolve().name == "step=000150.ckpt"
    reported = subprocess.run(
        command("report", "s"), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert reported.returncode == 0, reported.stderr
    assert "Differences to untouched" in (tmp_path / "s/tables.md").read_text()


@pytest.mark.slow
def test_the_runs_of_an_array_are_processes_of_submitit(real_plan: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    study = read_study(real_plan)
    store = StateStore(study.directory)
    listed = [job_of(study, arm, {}, 0) for arm in study.arms if arm.name != "full"]

    ended: list[str] = []

    class Told(Progress):
        def told(self, job: Any, state: Any) -> None:
            ended.append(f"{job.name} {state.status}")

    run_on_slurm(study, listed, store, Told(2, 0), {"timeout_min": 10}, cluster="local")
    assert sorted(ended) == ["adaptor,seed=0 finished", "broken,seed=0 failed"]
    assert store.read("broken,seed=0").error.startswith("textkeep: error:")

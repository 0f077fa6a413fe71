"""A study packed, carried to another place and continued there, with real child processes (study_child.py)."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from tests.support.report_run import write_run
from tests.support.study_children import CHILD
from textkeep.cli.main import main
from textkeep.importance import Snapshot
from textkeep.runs.study import jobs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(CHILD)))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_plan(folder: Path, seeds: list[int]) -> None:
    """A grid whose choice needs the metrics of finished runs, and an arm that fails."""
    (folder / "base.yaml").write_text("trainer: {}\n")
    arms = {"full": {"grid": {"model.lr": [0.1, 0.3]}}, "bad": {"set": {"model.broken": True}, "seeds": [0]}}
    plan = {"directory": "s", "configs": ["base.yaml"], "seeds": seeds, "arms": arms}
    plan["selection"] = {"metric": "val/speech_accuracy"}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as packed:
        return packed.getnames()


def test_a_packed_study_is_continued_elsewhere_without_its_checkpoints(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(here, [0])
    assert main(["study", "plan.yaml"]) == 1
    assert main(["study", "plan.yaml", "--pack", "s.tar.xz"]) == 0
    assert "3 finished runs" in capsys.readouterr().out
    there = tmp_path / "there"
    there.mkdir()
    write_plan(there, [0, 1])
    monkeypatch.chdir(there)
    assert main(["study", "plan.yaml", "--unpack", str(here / "s.tar.xz")]) == 0
    assert not list(Path("s").rglob("*.ckpt"))
    assert not Path("s/runs/bad").exists()
    assert "s/logs" not in Path("s/state/bad,seed=0.json").read_text()
    capsys.readouterr()
    assert main(["study", "plan.yaml"]) == 1
    out = capsys.readouterr().out
    assert "3 runs were finished before" in out
    assert "full,lr=0.3,seed=1: running" in out  # chosen by the metrics of runs without a checkpoint
    assert "log: s/logs/bad,seed=0.log" in out
    assert json.loads(Path("s/state/full,lr=0.3,seed=0.json").read_text())["attempts"] == 2  # trained, then tested
    assert main(["report", "s"]) == 0


def test_a_study_directory_may_be_named_instead_of_its_plan(here: Path, tmp_path: Path) -> None:
    write_plan(here, [0])
    main(["study", "plan.yaml"])
    Path("s").rename(tmp_path / "moved")
    assert main(["study", str(tmp_path / "moved"), "--pack", "s.tar.xz"]) == 0
    assert main(["study", "again", "--unpack", "s.tar.xz"]) == 0
    assert main(["study", "again"]) == 1  # the arm that fails
    assert not Path("s").exists()
    assert json.loads(Path("again/state/untouched.json").read_text())["attempts"] == 1


def test_the_archive_is_the_same_each_time_and_holds_no_weights(here: Path) -> None:
    write_plan(here, [0])
    main(["study", "plan.yaml"])
    run = write_run(Path("s/runs/full,lr=0.1/seed=0"), steps=(0, 4), layers=3)
    (run / "wandb").mkdir()
    (run / "wandb/config.yaml").write_text("")
    (run / "importance/map.png").touch()
    (run / "importance/speech/step=000004/masks.safetensors").touch()
    main(["study", "plan.yaml", "--pack", "a.tar.xz"])
    (run / "config.yaml").touch()
    main(["study", "plan.yaml", "--pack", "b.tar.xz"])
    assert Path("a.tar.xz").read_bytes() == Path("b.tar.xz").read_bytes()
    listed = names(Path("a.tar.xz"))
    assert listed == sorted(listed, key=lambda name: Path(name))
    base = "s/runs/full,lr=0.1/seed=0/"
    assert {base + "config.yaml", base + "metrics.csv", base + "importance/summary.jsonl"} <= set(listed)
    assert not [n for n in listed if n.endswith((".ckpt", ".png", ".log", "masks.safetensors")) or "/wandb/" in n]
    with tarfile.open("a.tar.xz") as packed:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in packed} == {(0, 0, 0, "", 0o644)}


def test_a_snapshot_keeps_its_scores_and_loses_its_long_vectors(here: Path) -> None:
    write_plan(here, [0])
    main(["study", "plan.yaml"])
    run = write_run(Path("s/runs/full,lr=0.1/seed=0"), steps=(0, 4), layers=3)
    main(["study", "plan.yaml", "--pack", "a.tar.xz"])
    main(["study", "copy", "--unpack", "a.tar.xz"])
    place = Path("importance/speech/step=000004")
    packed = Path("copy/runs/full,lr=0.1/seed=0") / place
    assert not [key for key in load_file(packed / "stats.safetensors") if key.startswith(("rows", "columns"))]
    before, after = Snapshot.load(run / place), Snapshot.load(packed)
    np.testing.assert_array_equal(before.examples["taylor"], after.examples["taylor"])
    assert after.rows == {}


@pytest.mark.parametrize("broken", ["no archive", "another", "cut"])
def test_what_is_no_packed_study_is_refused_in_one_line(
    here: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(here, [0])
    path = Path("x.tar.xz")
    if broken == "no archive":
        path.write_text("hello")
    else:
        with tarfile.open(path, "w:xz") as archive:
            archive.addfile(tarfile.TarInfo("a/b.txt"), io.BytesIO())
        if broken == "cut":
            path.write_bytes(path.read_bytes()[:60])
    assert main(["study", "plan.yaml", "--unpack", "x.tar.xz"]) == 2
    err = capsys.readouterr().err
    assert "study: --unpack x.tar.xz" in err
    assert err.count("\n") == 1
    assert {p.name for p in here.iterdir()} == {"base.yaml", "plan.yaml", "x.tar.xz"}


def test_a_member_that_would_leave_the_directory_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(here, [0])
    with tarfile.open("x.tar.xz", "w:xz") as archive:
        for name in ("s/study.yaml", "../outside.txt"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert main(["study", "plan.yaml", "--unpack", "x.tar.xz"]) == 2
    assert "outside" in capsys.readouterr().err
    assert not Path("s").exists()
    assert not (here.parent / "outside.txt").exists()


def test_nothing_is_overwritten_and_nothing_empty_is_packed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(here, [0])
    assert main(["study", "plan.yaml", "--pack", "s.tar.xz"]) == 2
    assert "no run of s is finished" in capsys.readouterr().err
    assert main(["study", "plan.yaml", "--pack", "s.zip"]) == 2
    assert "(allowed: a file whose name ends in .tar.xz)" in capsys.readouterr().err
    Path("s").mkdir()
    Path("s/thesis.tex").touch()
    Path("x.tar.xz").touch()
    assert main(["study", "plan.yaml", "--unpack", "x.tar.xz"]) == 2
    assert "s is not empty" in capsys.readouterr().err


def test_a_run_whose_test_is_missing_is_trained_again_where_its_checkpoint_is_not(here: Path) -> None:
    write_plan(here, [0])
    main(["study", "plan.yaml"])
    state = Path("s/state/full,lr=0.3,seed=0.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "failed", "tested": False}))
    run = Path("s/runs/full,lr=0.3/seed=0")
    for path in run.rglob("*.ckpt"):
        path.unlink()
    main(["study", "plan.yaml"])
    found: dict[str, Any] = json.loads(state.read_text())
    assert (found["status"], found["fitted"]) == ("finished", True)
    assert list(run.rglob("*.ckpt"))

"""Which directory a run gets, and what it continues from."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from textkeep.cli.errors import CommandError
from textkeep.cli.run_directory import (
    RunDirectory,
    checkpoint_to_load,
    directory_of_requeued_job,
    is_continuation,
    newer_sibling,
    newest_checkpoint,
)


def checkpoint(directory: Path, name: str, age: float) -> Path:
    path = directory / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("weights")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_a_free_name_is_taken_and_a_used_one_is_not(tmp_path: Path) -> None:
    wanted = tmp_path / "runs" / "a"
    taken = [RunDirectory.claim(wanted, lambda path: f"dir: {path}").path for _ in range(3)]
    assert taken == [wanted, tmp_path / "runs" / "a-2", tmp_path / "runs" / "a-3"]
    assert [path.joinpath("config.yaml").read_text() for path in taken] == [f"dir: {path}" for path in taken]


def test_an_empty_directory_is_free_and_one_with_other_files_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    assert RunDirectory.claim(tmp_path / "empty", str).path == tmp_path / "empty"
    assert RunDirectory.claim(tmp_path / "used", str).path == tmp_path / "used-2"


def test_runs_that_start_together_get_different_directories(tmp_path: Path) -> None:
    taken: list[Path] = []
    threads = [
        threading.Thread(target=lambda: taken.append(RunDirectory.claim(tmp_path / "array", str).path))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 16


def test_a_run_that_did_nothing_gives_its_directory_back(tmp_path: Path) -> None:
    idle = RunDirectory.claim(tmp_path / "idle", str)
    (idle.path / "wandb").mkdir()
    idle.release()
    assert not idle.path.exists()
    busy = RunDirectory.claim(tmp_path / "busy", str)
    (busy.path / "metrics.csv").write_text("step\n")
    busy.release()
    assert busy.path.exists()
    found = RunDirectory(tmp_path / "busy", fresh=False)
    (busy.path / "metrics.csv").unlink()
    found.release()
    assert busy.path.exists()


def test_a_checkpoint_of_the_directory_continues_it_and_another_does_not(tmp_path: Path) -> None:
    own = checkpoint(tmp_path / "a", "step=000010.ckpt", 0)
    foreign = checkpoint(tmp_path / "b", "step=000010.ckpt", 0)
    assert is_continuation(tmp_path / "a", str(own))
    assert not is_continuation(tmp_path / "a", str(foreign))
    assert not is_continuation(tmp_path / "a", None)


def test_a_requeued_slurm_job_finds_the_directory_it_began_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunDirectory.claim(tmp_path / "a", str)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    mine = RunDirectory.claim(tmp_path / "a", str).path
    assert mine == tmp_path / "a-2"
    assert directory_of_requeued_job(tmp_path / "a") is None  # its first start
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert directory_of_requeued_job(tmp_path / "a") == mine
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert directory_of_requeued_job(tmp_path / "a") is None


def test_the_state_that_lightning_saves_for_slurm_counts(tmp_path: Path) -> None:
    checkpoint(tmp_path, "step=000100.ckpt", age=50)
    saved = tmp_path / "hpc_ckpt_1.ckpt"
    saved.write_text("state")
    os.utime(saved, (1e9, 1e9))
    assert newest_checkpoint(tmp_path) == saved


def test_last_is_the_file_written_last_and_not_the_link(tmp_path: Path) -> None:
    checkpoint(tmp_path, "step=000100.ckpt", age=50)
    newest = checkpoint(tmp_path, "step=000020.ckpt", age=10)
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to("step=000100.ckpt")
    assert newest_checkpoint(tmp_path) == newest
    assert checkpoint_to_load(tmp_path, "last", "fit") == str(newest)


def test_last_without_a_checkpoint_begins_a_fit_and_fails_a_test(tmp_path: Path) -> None:
    assert checkpoint_to_load(tmp_path, "last", "fit") is None
    with pytest.raises(CommandError, match="there is no 'last' checkpoint in"):
        checkpoint_to_load(tmp_path, "last", "test")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no file .*x\.ckpt; allowed: a checkpoint, 'last', or an export"):
        checkpoint_to_load(tmp_path, str(tmp_path / "x.ckpt"), "fit")


def test_a_newer_run_of_the_name_is_pointed_out(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a", "step=1.ckpt", age=50)
    assert newer_sibling(tmp_path / "a") is None
    checkpoint(tmp_path / "a-2", "step=1.ckpt", age=90)
    checkpoint(tmp_path / "a-better", "step=1.ckpt", age=0)
    assert newer_sibling(tmp_path / "a") is None
    checkpoint(tmp_path / "a-3", "step=1.ckpt", age=10)
    assert newer_sibling(tmp_path / "a") == tmp_path / "a-3"

"""Which directory a run gets, and what it continues from."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
import yaml

from textkeep.cli.checkpoint_choice import checkpoint_to_load, directory_of_config
from textkeep.foundation.errors import UserError
from textkeep.foundation.run_names import newest_checkpoint
from textkeep.runs.belonging import is_continuation, newer_sibling
from textkeep.runs.directory import RunDirectory, continue_config


def checkpoint(directory: Path, name: str, age: float) -> Path:
    path = directory / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w") as archive:
        archive.writestr("weights", "1")
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
    found = RunDirectory.take(tmp_path / "busy")
    (busy.path / "metrics.csv").unlink()
    found.release()
    assert busy.path.exists()


def test_a_checkpoint_of_the_directory_continues_it_and_another_does_not(tmp_path: Path) -> None:
    own = checkpoint(tmp_path / "a", "step=000010.ckpt", 0)
    foreign = checkpoint(tmp_path / "b", "step=000010.ckpt", 0)
    assert is_continuation(tmp_path / "a", str(own))
    assert not is_continuation(tmp_path / "a", str(foreign))
    assert not is_continuation(tmp_path / "a", None)


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
    with pytest.raises(UserError, match="there is no 'last' checkpoint in"):
        checkpoint_to_load(tmp_path, "last", "test")


@pytest.mark.parametrize("content", [{"a": 1}, [1], {"state_dict": {}}])
def test_a_file_of_another_program_is_no_checkpoint(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt is no checkpoint of a run: there is no '(state_dict|pytorch-li)"):
        checkpoint_to_load(tmp_path, str(tmp_path / "x.ckpt"), "fit")
    with pytest.raises(UserError, match="is a directory; allowed: a checkpoint, 'last', or an export"):
        checkpoint_to_load(tmp_path, str(tmp_path), "fit")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*x\.ckpt; allowed: a checkpoint, 'last', or an export"):
        checkpoint_to_load(tmp_path, str(tmp_path / "x.ckpt"), "fit")


def test_a_newer_run_of_the_name_is_pointed_out(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a", "step=1.ckpt", age=50)
    assert newer_sibling(tmp_path / "a") is None
    checkpoint(tmp_path / "a-2", "step=1.ckpt", age=90)
    checkpoint(tmp_path / "a-better", "step=1.ckpt", age=0)
    assert newer_sibling(tmp_path / "a") is None
    checkpoint(tmp_path / "a-3", "step=1.ckpt", age=10)
    assert newer_sibling(tmp_path / "a") == tmp_path / "a-3"


def test_last_is_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, "step=000010.ckpt", age=50)
    cut = checkpoint(tmp_path, "step=000020.ckpt", age=10)
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.warns(UserWarning, match=r"step=000020\.ckpt is damaged .*; the one before is taken: .*step=000010"):
        assert checkpoint_to_load(tmp_path, "last", "fit") == str(whole)
    with pytest.raises(ValueError, match=r"step=000020\.ckpt is damaged .*; beside it: .*step=000010\.ckpt"):
        checkpoint_to_load(tmp_path, str(cut), "fit")
    whole.unlink()
    with pytest.raises(ValueError, match=r"is damaged .*; there is no other checkpoint in this run"):
        checkpoint_to_load(tmp_path, "last", "fit")  # and does not begin anew without a word


def write_config(directory: Path, **content: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_the_config_of_a_run_means_the_directory_it_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Path("runs/t")
    path = write_config(tmp_path / "runs/t", trainer={"default_root_dir": "runs/t"})
    checkpoint(tmp_path / "runs/t", "step=1.ckpt", 0)
    other = write_config(tmp_path / "plain", trainer={"default_root_dir": "runs/t"})
    tail = write_config(tmp_path / "plain2", data={"seed": 1})
    monkeypatch.chdir(tmp_path)
    assert directory_of_config(["--config", "runs/t/config.yaml"], wanted) == wanted
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert directory_of_config(["--config", str(path)], wanted) == path.parent  # from another working directory
    assert directory_of_config(["--config", str(path), f"--config={tail}"], wanted) == path.parent
    assert directory_of_config(["--config", str(other)], wanted) == wanted  # no run lies there
    assert directory_of_config(["--config", str(path), "--config", str(other)], wanted) == wanted
    assert directory_of_config(["--config", str(path)], Path("mine")) == Path("mine")  # told on the command line
    assert directory_of_config([], wanted) == wanted
    renamed = path.parent.rename(tmp_path / "runs/renamed")
    assert directory_of_config(["-c", str(renamed / "config.yaml")], wanted) == renamed


def test_a_continued_run_has_its_present_config_and_keeps_the_one_before(tmp_path: Path) -> None:
    first = {"trainer": {"max_steps": 8}, "ckpt_path": None}
    path = write_config(tmp_path, **first)
    path.write_text("# SLURM job 7\n" + path.read_text())
    same = {**first, "ckpt_path": "runs/t/checkpoints/step=000008.ckpt"}
    continue_config(tmp_path, yaml.safe_dump(same), 8)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]
    continue_config(tmp_path, yaml.safe_dump({**same, "trainer": {"max_steps": 10}}), 8)
    assert path.read_text().startswith("# SLURM job 7\n")
    assert yaml.safe_load(path.read_text()) == {"trainer": {"max_steps": 10}, "ckpt_path": None}
    assert yaml.safe_load((tmp_path / "config.until_step=000008.yaml").read_text()) == first
    continue_config(tmp_path, yaml.safe_dump({**same, "trainer": {"max_steps": 12}}), 8)  # 8 again, after a crash
    assert yaml.safe_load((tmp_path / "config.until_step=000008.yaml").read_text()) == first
    assert yaml.safe_load(path.read_text())["trainer"] == {"max_steps": 12}


@pytest.mark.parametrize("damaged", ["", "trainer: {max_st", "\0\0", "a: b: c", "- 1"])
def test_a_damaged_config_stays_beside_the_one_of_the_continuation(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(damaged)
    continue_config(tmp_path, yaml.safe_dump({"trainer": {"max_steps": 8}}), 4)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"trainer": {"max_steps": 8}, "ckpt_path": None}
    assert (tmp_path / "config.until_step=000004.yaml").read_text() == damaged

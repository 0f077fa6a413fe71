"""metrics.csv of a run: late columns, continued runs, atomic rewriting."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from textkeep.callbacks import RunCSVLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_name_that_comes_late_gets_a_column(tmp_path: Path) -> None:
    logger = RunCSVLogger(tmp_path, flush_every=1)
    logger.log_metrics({"train/loss": torch.tensor(2.0)}, step=0)
    logger.log_metrics({"val/text_ce": 1.5}, step=1)
    logger.log_metrics({"train/loss": 1.0, "val/text_ce": 1.0}, step=2)
    assert rows(tmp_path) == [
        {"step": "0", "train/loss": "2.0", "val/text_ce": ""},
        {"step": "1", "train/loss": "", "val/text_ce": "1.5"},
        {"step": "2", "train/loss": "1.0", "val/text_ce": "1.0"},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_rows_wait_until_they_are_flushed(tmp_path: Path) -> None:
    logger = RunCSVLogger(tmp_path, flush_every=3)
    for step in range(4):
        logger.log_metrics({"loss": step}, step=step)
    assert len(rows(tmp_path)) == 3
    logger.finalize("failed")
    assert [row["loss"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


def test_a_continued_run_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    first = RunCSVLogger(tmp_path)
    for step in range(6):
        first.log_metrics({"loss": 10 + step}, step=step)
    first.finalize("failed")
    second = RunCSVLogger(tmp_path)
    for step in range(4, 7):
        second.log_metrics({"loss": 20 + step, "more": 1}, step=step)
    second.finalize("success")
    losses = [(row["step"], row["loss"]) for row in rows(tmp_path)]
    assert losses == [
        ("0", "10"),
        ("1", "11"),
        ("2", "12"),
        ("3", "13"),
        ("4", "24"),
        ("5", "25"),
        ("6", "26"),
    ]


def test_a_validation_that_is_run_again_has_one_row_and_the_training_row_of_its_step_stays(tmp_path: Path) -> None:
    first = RunCSVLogger(tmp_path)
    first.log_metrics({"train/loss": 3.0}, step=4)
    first.log_metrics({"val/text_ce": 1.5, "val/speech_ce": 2.5}, step=4)
    first.finalize("failed")
    second = RunCSVLogger(tmp_path)
    second.log_metrics({"val/text_ce": 1.5, "val/speech_ce": 2.5}, step=4)
    second.log_metrics({"train/loss": 2.0}, step=5)
    second.finalize("success")
    found = [(row["step"], row["train/loss"], row["val/text_ce"]) for row in rows(tmp_path)]
    assert found == [("4", "3.0", ""), ("4", "", "1.5"), ("5", "2.0", "")]


def test_nothing_logged_writes_nothing(tmp_path: Path) -> None:
    RunCSVLogger(tmp_path / "run").finalize("success")
    assert not (tmp_path / "run").exists()


def test_a_test_of_an_earlier_checkpoint_drops_no_later_one(tmp_path: Path) -> None:
    for step in (60, 30):
        logger = RunCSVLogger(tmp_path, forget_later=False)
        logger.log_metrics({"test/text_ce": step}, step=step)
        logger.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["60", "30"]


@pytest.mark.parametrize("rest", ["", "1,0.", "1", "x,y\n", "1,2,3,4\n", "\0\0\0\0", "\0\0\n"])
def test_rows_that_were_cut_off_are_left_out(rest: str, tmp_path: Path) -> None:
    whole = "step,loss\n0,3.0\n"
    (tmp_path / "metrics.csv").write_text(whole + rest)
    logger = RunCSVLogger(tmp_path, flush_every=1)
    logger.log_metrics({"loss": 2.0}, step=1)
    logger.log_metrics({"late": 5.0}, step=2)
    found = [row for row in rows(tmp_path) if row["step"]]
    assert [row["step"] for row in found] == ["0", "1", "2"]
    assert [row["loss"] for row in found] == ["3.0", "2.0", ""]


@pytest.mark.parametrize("content", ["", "ste"])
def test_a_file_without_a_whole_header_begins_anew(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    logger = RunCSVLogger(tmp_path, flush_every=1)
    logger.log_metrics({"loss": 2.0}, step=1)
    assert rows(tmp_path) == [{"step": "1", "loss": "2.0"}]


def test_what_a_checkpoint_counts_on_is_in_the_file(tmp_path: Path) -> None:
    logger = RunCSVLogger(tmp_path, flush_every=100)
    assert logger.settle() == 0
    for step in range(3):
        logger.log_metrics({"loss": step}, step=step)
    assert logger.settle() == 3
    assert len(rows(tmp_path)) == 3
    logger.log_metrics({"late": 1.0}, step=3)
    assert logger.settle() == 4
    assert len(rows(tmp_path)) == 4


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    logger = RunCSVLogger(tmp_path, flush_every=1)
    logger.log_metrics({"loss": 1.0}, step=0)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as told:
        logger.log_metrics({"loss": 2.0}, step=1)
    assert told.value.filename == str(tmp_path / "metrics.csv")

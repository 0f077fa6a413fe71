"""A run that is killed is the run that is not killed; and the comparison that says so would see if it were not."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.soak.__main__ import main
from benchmarks.soak.comparison import compare_runs
from benchmarks.soak.killing import draw_moment
from benchmarks.soak.timeline import Event

Change = Callable[[Path], None]
CHECKPOINT = "checkpoints/step=000005.ckpt"


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as the comparison meets it."""
    run = tmp_path_factory.mktemp("soak") / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "evaluation").mkdir()
    (run / "metrics.csv").write_text("step,train/loss,val/text_ce\n0,1.5,\n1,1.25,\n1,,2.0\n")
    record = {"id": "a", "loss": 0.5}
    (run / "evaluation/step=000000.jsonl").write_text(json.dumps(record) + "\n")
    (run / "evaluation/summary.jsonl").write_text(json.dumps({"step": 0, "loss": 0.5, "seconds": 3.0}) + "\n")
    state = {"state_dict": {"w": torch.tensor([1.0, 2.0])}, "optimizer_states": [{"m": torch.tensor(0.0)}]}
    torch.save({**state, "global_step": 5, "loops": {"n": 1}}, run / CHECKPOINT)
    (run / "checkpoints/last.ckpt").symlink_to("step=000005.ckpt")
    return run


def _weights(run: Path) -> None:
    state = torch.load(run / CHECKPOINT, weights_only=True)
    state["state_dict"]["w"][1] = torch.nextafter(torch.tensor(2.0), torch.tensor(3.0))
    torch.save(state, run / CHECKPOINT)


def _negative_zero(run: Path) -> None:
    state = torch.load(run / CHECKPOINT, weights_only=True)
    state["optimizer_states"][0]["m"] = torch.tensor(-0.0)
    torch.save(state, run / CHECKPOINT)


def _in_text(name: str, old: str, new: str) -> Change:
    def change(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return change


CHANGES: dict[str, tuple[str, Change]] = {
    "the last bit of a weight": ("weights", _weights),
    "the sign of a zero": ("optimizer", _negative_zero),
    "a value": ("metric rows", _in_text("metrics.csv", "1.25", "1.250001")),
    "a doubled row": ("metric rows", _in_text("metrics.csv", "0,1.5,\n", "0,1.5,\n0,1.5,\n")),
    "a missing row": ("metric rows", _in_text("metrics.csv", "1,,2.0\n", "")),
    "two rows that have changed places": (
        "order of rows",
        _in_text("metrics.csv", "1,1.25,\n1,,2.0", "1,,2.0\n1,1.25,"),
    ),
    "a record": ("evaluation", _in_text("evaluation/step=000000.jsonl", "0.5", "0.25")),
    "a summary": ("evaluation", _in_text("evaluation/summary.jsonl", '"loss": 0.5', '"loss": 0.6')),
    "a file left over": ("files", lambda run: (run / "checkpoints/.x.tmp").touch()),
    "a file missing": ("files", lambda run: (run / "evaluation/step=000000.jsonl").unlink()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_comparison_sees(name: str, small_run: Path, tmp_path: Path) -> None:
    kind, change = CHANGES[name]
    other = tmp_path / "other"
    shutil.copytree(small_run, other, symlinks=True)
    assert compare_runs(small_run, other).equal
    change(other)
    assert list(compare_runs(small_run, other).differences) == [kind]


def test_seconds_are_not_compared(small_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small_run, other, symlinks=True)
    _in_text("evaluation/summary.jsonl", "3.0", "4.0")(other)
    assert compare_runs(small_run, other).equal


def test_moments_are_spread_over_the_time_of_a_run_and_come_after_what_is_done() -> None:
    reference = [Event("batch_start", number, 2.0 * number) for number in range(1, 101)]
    drawn = [draw_moment(reference, 50, 0.1, random.Random(seed)) for seed in range(200)]
    batches = [moment.event.batches for moment in drawn if moment.event]
    assert min(batches) >= 50
    assert max(batches) <= 71
    assert len(set(batches)) > 15
    assert all(0 <= moment.delay <= 2.0 for moment in drawn)


@pytest.mark.slow
def test_a_run_that_is_killed_is_the_run_that_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main(["--kills", "3", "--steps", "30", "--seed", "1", "--json", str(out), "--out", str(tmp_path)]) == 0
    told = json.loads(out.read_text())
    assert len(told["moments"]) == 3
    assert told["compared"]["metric rows"] > 50

"""What is made of a rehearsal: the largest batch, disk, length, advice, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from textkeep.callbacks import ImportanceTracker, RunCheckpoint
from textkeep.cli.main import main
from textkeep.cli.plan import memory
from textkeep.datamodules import SpeechTextData
from textkeep.datamodules.probes import Probe
from textkeep.importance import probe
from textkeep.importance.sites import find_sites
from textkeep.planning import Length, Machine
from textkeep.planning.disk import planned_disk
from textkeep.planning.largest import largest_budget
from textkeep.planning.moments import Moment, Sizes


def test_the_largest_batch_is_the_largest_to_a_few_rows() -> None:
    asked = []

    def rehearse(budget: int) -> Moment:
        rows = budget // 50
        asked.append(rows)
        return Moment("", {"all": 1000 + 37 * rows}, 1, rows, 50 * rows)

    found = largest_budget(rehearse, 400, 50, 10_000)
    assert found is not None
    assert found.total <= 10_000
    assert 0.95 * 243 <= found.rows <= 243
    assert len(asked) == 3, "each is a rehearsal"
    assert largest_budget(rehearse, 400, 50, 1036) is None
    assert largest_budget(rehearse, 400, 50, 1037 + 36).rows == 1  # type: ignore[union-attr]


def test_a_batch_that_grows_faster_than_a_line_is_cut() -> None:
    def rehearse(budget: int) -> Moment:
        rows = budget // 10
        return Moment("", {"all": rows**2}, 1, rows, budget)

    found = largest_budget(rehearse, 20, 10, 10_000)
    assert found is not None
    assert 90 <= found.rows <= 100


@pytest.mark.parametrize("rows_for_free", [2, 40])
def test_a_batch_of_the_size_that_fits_is_found_where_the_first_rows_cost_nothing(rows_for_free: int) -> None:
    """The peak of a tiny batch is that of the gradients: two of them tell nothing of the growth."""

    def rehearse(budget: int) -> Moment:
        rows = min(budget // 10, 4096)  # so many a batch takes
        return Moment("", {"all": 5000 + 30 * max(0, rows - rows_for_free)}, 1, rows, 10 * rows)

    found = largest_budget(rehearse, 20, 10, 9500)
    assert found is not None
    assert found.total <= 9500
    assert 0.95 * (150 + rows_for_free) <= found.rows <= 150 + rows_for_free
    all_of_them = largest_budget(rehearse, 20, 10, 10**9)
    assert all_of_them is not None
    assert all_of_them.rows == 4096


def test_time_is_operations_over_what_is_reached() -> None:
    machine = Machine(gpus=8, nodes=2, memory=80 * 10**9, spare=0.25, tflops=100.0, utilisation=0.5)
    assert machine.ranks == 16
    assert machine.usable == 60 * 10**9
    assert machine.seconds(5e13) == 1.0


@pytest.mark.parametrize(
    ("length", "batches", "count"),
    [
        (Length(None, 3, 0.25), None, 12),
        (Length(None, 4, 1.0, 2), None, 2),
        (Length(None, 2, 100), 450, 8),
        (Length(None, 2, 100), None, None),
        (Length(None, None, 1.0), 450, None),
    ],
)
def test_validations_are_counted_as_the_trainer_does(length: Length, batches: int | None, count: int | None) -> None:
    assert length.validations(batches) == count


SIZES = Sizes({}, trained=1000, optimizer=2000, gradients=1000)


@pytest.mark.parametrize(
    ("callback", "size", "count"),
    [
        (RunCheckpoint(), 3000, 1),
        (RunCheckpoint(save_top_k=-1), 3000, 12),
        (RunCheckpoint(save_weights_only=True, save_top_k=2, monitor="val/loss"), 1000, 2),
    ],
)
def test_checkpoints_hold_what_is_trained_and_the_moments(
    callback: ModelCheckpoint, size: int, count: int, tiny_llm: Any
) -> None:
    found = planned_disk(SIZES, find_sites(tiny_llm), SpeechTextData(), [callback], 12)
    assert (found.checkpoint, found.checkpoints, found.snapshot, found.snapshots) == (size, count, 0, 0)
    assert found.most == size * (count + 1), "one more while it is written"


@pytest.fixture(scope="module")
def tiny_llm(tiny_llm_dir: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llm_dir)


@pytest.mark.parametrize("vectors", [True, False])
def test_a_snapshot_is_as_large_as_said(vectors: bool, tiny_llm: Any, tmp_path: Path) -> None:
    rows = torch.randint(5, 300, (8, 20), generator=torch.Generator().manual_seed(0))
    estimators = ("taylor", "fisher", "signed_taylor")
    batches = [{"input_ids": rows, "labels": rows, "attention_mask": torch.ones_like(rows)}]
    probe(tiny_llm, batches, estimators, vectors=vectors).save(tmp_path / "snapshot")
    data = SpeechTextData(probes={"one": Probe("spoken-facts/general", examples=8)})
    tracker = ImportanceTracker(estimators=estimators, vectors=vectors)
    found = planned_disk(SIZES, find_sites(tiny_llm), data, [tracker], 3)
    size = (tmp_path / "snapshot/stats.safetensors").stat().st_size
    assert found.snapshots == 4
    assert found.snapshot == pytest.approx(size, rel=0.35), "names and losses of the examples come on top"
    assert abs(found.snapshot - size) < 5000


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize(("text", "size"), [("80GB", 80 * 10**9), ("74.5 GiB", int(74.5 * 2**30)), ("1gb", 10**9)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert memory(text) == size


def planned(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["plan", *map(str, words)])
    return code, capsys.readouterr().out


def test_a_plan_of_a_config(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--gpus", 2, "--nodes", 2, "--gpu-memory", "1GB", "--seconds", 1, "--answer-tokens", 4, "--examples", 99)
    code, out = planned(capsys, tiny_config, *options, "--json", "--model.gradient_checkpointing", "true")
    found = json.loads(out)
    assert code == 0
    assert found["fits"] is True
    assert found["machine"]["ranks"] == 4
    assert found["peak"] == max(moment["total"] for moment in found["moments"])
    rows = found["moments"][0]["rows"]
    assert found["pace"]["step_rows"] == 4 * rows
    assert found["pace"]["epoch_steps"] == int(np.ceil(99 / (4 * rows)))
    assert found["largest"]["rows"] > rows
    assert not (tiny_config.parent / "runs").exists(), "nothing is written"


@pytest.mark.slow
def test_what_does_not_fit_is_told_with_what_to_change(
    tiny_config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out = planned(capsys, tiny_config, "--gpu-memory", "0.002GB", "--seconds", 1, "--run")
    assert code == 1
    assert "does not fit: " in out
    for change in ("model.gradient_checkpointing: true", "data.tokens_per_batch: ", "data.eval_tokens_per_batch: "):
        assert f"change: {change}" in out, "of every moment that does not fit, not of the highest alone"
    assert "measured on " in out
    assert "optimizer state" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu-memory", "80"], "must be a size such as 80GB or 74.5GiB, got '80'"),
        (["--utilisation", "1.2"], "must lie between 0 and 1, got '1.2'"),
        (["--gpus", "0"], "must be a whole number of at least 1"),
        (["--seconds", "-1"], "must be above 0"),
    ],
)
def test_a_wrong_option_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", "x.yaml", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_what_a_config_gets_wrong_is_one_line(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tiny_config.parent / "none.yaml")]) == 2
    assert main(["plan", str(tiny_config), "--data.tokens_per_batch", "20"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("textkeep: error")]
    assert lines[0].endswith("none.yaml: no such config file")
    assert "allowed: at most tokens_per_batch = 20" in lines[1]

"""``textkeep importance`` of runs whose LoRA acts on speech alone: each modality meets weights of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.measured_runs import PROBED, STEPS, MeasuredRun
from textkeep.cli.importance import main
from textkeep.cli.main import main as textkeep
from textkeep.importance import Snapshot
from textkeep.inference import load, read_examples

MODALITIES = ("text", "speech")


def options(manifest: Path, modality: str, examples: int) -> list[str]:
    return ["--data", str(manifest), "--modality", modality, "--examples", str(examples), "--device", "cpu"]


@pytest.mark.parametrize("modality", MODALITIES)
def test_probe_writes_the_snapshot_of_the_run(
    modality: str, measured_run: MeasuredRun, tiny_manifest: Path, tmp_path: Path
) -> None:
    run = measured_run("turns")
    assert main(["probe", str(run), *options(tiny_manifest, modality, PROBED), "-o", str(tmp_path / "s")]) == 0
    found, recorded = Snapshot.load(tmp_path / "s"), Snapshot.load(run / f"importance/{modality}/step={STEPS:06d}")
    assert (found.step, found.meta["probe"]) == (STEPS, recorded.meta["probe"])
    np.testing.assert_allclose(found.scores("taylor"), recorded.scores("taylor"), rtol=1e-4)


@pytest.mark.parametrize("modality", MODALITIES)
def test_verify_and_removal_meet_the_weights_of_the_modality(
    modality: Any, measured_run: MeasuredRun, tiny_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured_run("turns")
    others = read_examples(str(tiny_manifest), modality, 3, skip=3)
    expected = load(run, "cpu").losses(others, modality).mean()
    argv = [str(run), *options(tiny_manifest, modality, 3), "--json"]
    capsys.readouterr()
    assert main(["verify", *argv, "--groups", "6", "--shrink", "1", "-o", str(tmp_path / "v.json")]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["step"] == STEPS
    assert verified["loss"] == pytest.approx(expected, rel=1e-5)
    assert main(["removal", *argv, "--fraction", "0.2"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["data"] for row in rows} == {f"manifest, {modality}"}  # the other one meets other weights
    losses = {row["removed"]: row["loss"] for row in rows}
    assert losses["none"] == pytest.approx(expected, rel=1e-5)
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize("command", ["probe", "verify", "removal"])
def test_a_gate_on_positions(
    command: str, measured_run: MeasuredRun, tiny_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured_run("positions")
    extra = ["--groups", "6"] if command == "verify" else []
    argv = ["importance", command, str(run), "-o", str(tmp_path / "out"), *extra]
    capsys.readouterr()
    assert textkeep([*argv, *options(tiny_manifest, "speech", 3)]) == 2
    refusal = capsys.readouterr().err
    assert "its LoRA acts on some positions only, so speech meets no one matrix a layer; allowed: text, or" in refusal
    assert refusal.startswith("textkeep: error: importance: ")
    assert refusal.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert textkeep([*argv, *options(tiny_manifest, "text", 3)]) == 0

"""Ranks that share the weights out (FSDP2) learn, measure, save and go on as one process does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from transformers import AutoModelForCausalLM

from benchmarks.tiny_models import write_tiny_llm
from tests.support.overlays import rank_environment
from tests.support.ports import free_port
from tests.support.sharded_runs import CELLS, Files, batches_of_ranks, train
from tests.support.speech_run import write_manifest
from textkeep.callbacks.saving.checkpoint_io import WholeCheckpoints
from textkeep.evaluation import read_predictions
from textkeep.importance import Snapshot, probe
from textkeep.lightning_modules.saving.checkpoints import damage, find_checkpoint

MIDDLE = "checkpoints/step=000005.ckpt"
ROUNDED = {"bf16-mixed": 0.02, "bf16-true": 0.02}
"""Cells that compute in half precision, where two ranks round otherwise than one process: relative error allowed."""


def write_files(folder: Path, llm: Path, whisper: Path) -> Files:
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"Passage {i} says that {i} follows {i - 1} as day follows night." for i in range(12)))
    ids = torch.randint(3, 300, (4, 9), generator=torch.Generator().manual_seed(0))
    untouched = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32)
    probe(untouched, [{"input_ids": ids, "labels": ids}], "fisher", keep_maps=("fisher",)).save(folder / "fisher")
    manifest = write_manifest(folder, "train", 11)
    large = folder / "large"
    write_tiny_llm(large, hidden_size=512, intermediate_size=1536, num_hidden_layers=12, num_key_value_heads=4)
    (misfit := folder / "misfit.safetensors").write_bytes(save({"weight": torch.zeros(2)}, {"adaptor": "Another"}))
    return Files(*map(str, (llm, whisper, manifest, text, folder / "fisher", large, misfit)))


def run_ranks(folder: Path, files: Files, words: list[str], count: int, code: int = 0) -> None:
    """Runs cells on several ranks; rank zero must end with a code."""
    (folder / "files.json").write_text(json.dumps(asdict(files)))
    line = [sys.executable, "-m", "tests.support.sharded_runs", folder / "ranks", folder / "files.json", *words]
    port, logs = int(free_port()), [folder / f"rank{rank}.log" for rank in range(count)]
    ranks = []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            # What is freed is given back to the system, and so not counted.
            environment = {**rank_environment(rank, port, count), "MALLOC_MMAP_THRESHOLD_": "100000"}
            ranks.append(subprocess.Popen(list(map(str, line)), env=environment, stdout=file, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(timeout=850) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert codes[0] == code, "\n".join(log.read_text()[-3000:] for log in logs)


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]


def saved(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted((folder / "checkpoints").glob("step=*.ckpt"))
    return {path.name: WholeCheckpoints().load_checkpoint(path, weights_only=False) for path in files}


def compare_logged(one: Path, two: Path, tolerance: float) -> None:
    """Losses of every batch, and of validation, evaluations, test and prediction."""
    (alone,), ranks = read(one), read(two)
    in_turn = [loss for pair in zip(*(rank["losses"] for rank in ranks), strict=True) for loss in pair]
    assert in_turn == pytest.approx(alone["losses"][-len(in_turn) :], rel=tolerance)
    assert alone["steps"] == ranks[0]["steps"]
    assert all(rank["values"] == ranks[0]["values"] for rank in ranks)
    assert ranks[0]["values"] == pytest.approx(alone["values"], rel=tolerance, abs=max(tolerance / 10, 2e-6))
    for path in sorted((one / "evaluation").rglob("step=*.jsonl")):
        if path.parent.name == "passages":
            for ours, theirs in zip(
                *(read_predictions(run / path.relative_to(one)) for run in (two, one)), strict=True
            ):
                assert (ours.id, ours.tokens) == (theirs.id, theirs.tokens)
                assert ours.loss == pytest.approx(theirs.loss, rel=tolerance)
    assert ("tested" in alone) == ("tested" in ranks[0])
    if "tested" in alone:
        for found, expected in zip(ranks[0]["tested"], alone["tested"], strict=True):
            assert found == pytest.approx(expected, rel=tolerance)
        assert {**ranks[0]["answers"], **ranks[1]["answers"]} == alone["answers"]


def compare_saved(one: Path, two: Path, weights: float, moments: float) -> None:
    """Checkpoints: the same names, whole tensors, frozen weights and groups; values but for rounding."""
    expected, found = saved(one), saved(two)
    assert list(found) == list(expected)
    for name, state in found.items():
        assert state["frozen"] == expected[name]["frozen"]
        torch.testing.assert_close(state["state_dict"], expected[name]["state_dict"], rtol=0, atol=weights)
        (ours,), (theirs,) = state["optimizer_states"], expected[name]["optimizer_states"]
        assert ours["param_groups"] == theirs["param_groups"]
        torch.testing.assert_close(ours["state"], theirs["state"], rtol=0, atol=moments)


def compare_importance(one: Path, two: Path, tolerance: float) -> None:
    """Every score of every example and matrix of the untouched model and later, and the masks of the untouched one."""
    steps = sorted(path.parent.relative_to(one) for path in (one / "importance").rglob("meta.json"))
    assert len(steps) >= 4
    for place in steps:
        expected, found = Snapshot.load(one / place), Snapshot.load(two / place)
        for estimator in expected.estimators:
            scores = expected.scores(estimator)
            assert np.abs(found.scores(estimator) - scores).max() <= tolerance * np.abs(scores).max()
        if place.name == "step=000000" and tolerance < 1e-5:
            for estimator, masks in expected.masks.items():
                assert all(map(np.array_equal, masks, found.masks[estimator]))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_ranks_equal_one_process(tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    files = write_files(tmp_path, tiny_llm_dir, tiny_whisper_dir)
    one, two = tmp_path / "one", tmp_path / "ranks"
    with batches_of_ranks(2):
        for cell in CELLS:
            (one / cell).mkdir(parents=True)
            train(cell, files, one / cell, 1)
    begun = [one / "full" / MIDDLE, two / "lora" / MIDDLE, two / "gated positions" / MIDDLE]
    words = ["misfit", *CELLS, *(f"{path.parts[-3]}<{path}" for path in begun), "killed"]
    run_ranks(tmp_path, files, words, 2, -signal.SIGKILL)
    for cell in CELLS:
        print(cell)
        rough = ROUNDED.get(cell)
        compare_logged(one / cell, two / cell, rough or 1e-5)
        compare_saved(one / cell, two / cell, rough or 1e-5, rough or 1e-6)
        if (one / cell / "importance").exists():
            compare_importance(one / cell, two / cell, rough or 1e-6)

    # a rank that reads nothing holds its parts, and little beside them; without values it says what rank zero met
    size = sum(path.stat().st_size for path in Path(files.large).glob("*.safetensors"))
    assert read(two / "large")[1]["growth"] < 0.75 * size
    assert "could not build the model: ValueError: adaptor_weights" in (two / "misfit" / "refusal1.txt").read_text()

    # one process to two ranks, and two to two, to the bit
    for cell, whole, exact in (("full", one, False), ("lora", two, True), ("gated positions", two, True)):
        resumed, rest = saved(two / f"{cell} on"), saved(whole / cell)
        (name,) = set(resumed) & {list(rest)[-1]}
        torch.testing.assert_close(
            resumed[name]["state_dict"], rest[name]["state_dict"], rtol=0, atol=0 if exact else 1e-5
        )
    # a process that died while all parts of a checkpoint were there has left the one before, and `last` leads to it
    last = find_checkpoint(two / "killed")
    assert (last.name, damage(last)) == (Path(MIDDLE).name, None)
    assert (two / "killed" / "checkpoints" / "last.ckpt").resolve() == last
    assert len(list(last.parent.glob(".step=000010.ckpt.*.tmp/*.safetensors"))) == 2

    # two ranks to one process, which reads both ranks' batches of a step and so is twice as far in its data
    for cell in ("full", "gated positions"):
        state = WholeCheckpoints().load_checkpoint(two / cell / MIDDLE, weights_only=False)
        for loader in state["loops"]["fit_loop"]["state_dict"]["combined_loader"]:
            loader.update(batches=2 * loader["batches"], of=2 * loader["of"])
        torch.save(state, tmp_path / f"{cell}.ckpt")
        (one / f"{cell} on").mkdir()
        with batches_of_ranks(2):
            train(cell, files, one / f"{cell} on", 1, tmp_path / f"{cell}.ckpt")
        (name, last) = list(saved(one / f"{cell} on").items())[-1]
        torch.testing.assert_close(last["state_dict"], saved(one / cell)[name]["state_dict"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_ranks_equal_one_process(tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    """Four parts of a model, and two halves that are held twice."""
    files = write_files(tmp_path, tiny_llm_dir, tiny_whisper_dir)
    cells = ("gated positions", "replicas")
    with batches_of_ranks(4):
        for cell in cells:
            (tmp_path / "one" / cell).mkdir(parents=True)
            train(cell, files, tmp_path / "one" / cell, 1, instead_of=4)
    run_ranks(tmp_path, files, list(cells), 4)
    for cell in cells:
        compare_logged(tmp_path / "one" / cell, tmp_path / "ranks" / cell, 1e-5)
        compare_saved(tmp_path / "one" / cell, tmp_path / "ranks" / cell, 1e-5, 1e-6)

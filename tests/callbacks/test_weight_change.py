"""How far the weights moved, against float64 differences of the files and of what the layers really compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import ImportanceTracker, TuningImportance, WeightChange
from textkeep.datamodules import Probe
from textkeep.importance import Snapshot
from textkeep.lightning_modules import (
    AdaptorOnly,
    DepthUpScaling,
    FullFineTuning,
    ImportanceMask,
    LoRA,
    OPLoRA,
    PiSSA,
    SpeechLLM,
    SpeechTurns,
    Tuning,
)

ROOT = Path(__file__).parents[2]
FILE = "weight_change.json"


def fit(
    run: Path, llm: Path, whisper: Path, tuning: Tuning, tracker: bool = False, callback: bool = True, **more: Any
) -> SpeechLLM:
    """Three steps of AdamW."""
    data_folder = run.parent / "data"
    data_folder.mkdir(exist_ok=True)
    probes = {"heldout_text": Probe(str(data_folder / "val.jsonl"), "text", examples=5, batch_size=2)}
    optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.01)  # noqa: E731
    model = make_model(llm, whisper, tuning=tuning, optimizer=optimizer)
    callbacks: list[Any] = [ImportanceTracker(estimators=["taylor"], replicates=0, at_end=False)] if tracker else []
    callbacks += [TuningImportance()]
    callbacks += [WeightChange(shuffles=50, draws=5)] if callback else []
    settings = {"max_epochs": -1, "max_steps": 3, "limit_val_batches": 0, **more}
    make_trainer(run, callbacks, **settings).fit(model, datamodule=make_data(data_folder, probes=probes))
    return model


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / FILE).read_text())
    return found


def acting(layer: Any) -> torch.Tensor:
    """The matrix (out, in) that a layer applies, in float64, found by what it does with unit vectors."""
    layer = layer.double().eval()
    found: torch.Tensor = layer(torch.eye(layer.in_features, dtype=torch.float64)).T.detach()
    layer.float()
    return found


CASES = {
    "full": FullFineTuning,
    "masked": lambda: FullFineTuning(protect=ImportanceMask(probe="heldout_text", fraction=0.3)),
    "lora": lambda: LoRA(r=4),
    "dora": lambda: LoRA(r=4, use_dora=True),
    "pissa": lambda: LoRA(r=4, start=PiSSA()),
    "oplora": lambda: OPLoRA(r=4, k=4),
}
RANKS = {"full": None, "masked": None, "pissa": 8}  # PiSSA's change is B A less what it began with


@pytest.mark.parametrize("case", CASES)
def test_norms_are_those_of_a_float64_difference_to_the_file(
    case: str, tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    model = fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, CASES[case]())
    before = load_file(tiny_llm_dir / "model.safetensors")
    found = result(tmp_path / "run")
    assert found["step"] == 3
    assert len(found["matrices"]) == 14
    total = weight = 0.0
    for matrix in found["matrices"]:
        start = before[matrix["name"]].double()
        layer = model.llm.get_submodule(matrix["name"].removesuffix(".weight"))
        change = acting(layer) - start
        assert matrix["norm"] == pytest.approx(float(change.norm()), rel=1e-4), matrix["name"]
        assert matrix["base_norm"] == pytest.approx(float(start.norm()), rel=1e-6)
        assert matrix["layer"] == int(matrix["name"].split(".")[2])
        assert matrix["rank"] == RANKS.get(case, 4)
        total, weight = total + float(change.square().sum()), weight + float(start.square().sum())
    assert found["relative"] == pytest.approx((total / weight) ** 0.5, rel=1e-4)
    assert found["relative"] > 1e-3
    assert f"{found['relative']:.4g}"[:4] in (tmp_path / "run/metrics.csv").read_text()


def test_a_gated_adapter_counts_though_it_is_shut(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model = fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, LoRA(r=4, gate=SpeechTurns()))
    matrix = result(tmp_path / "run")["matrices"][5]
    layer: Any = model.llm.get_submodule(matrix["name"].removesuffix(".weight"))
    a, b = (part["default"].weight.detach().double() for part in (layer.lora_A, layer.lora_B))
    assert matrix["norm"] == pytest.approx(float((2 * b @ a).norm()), rel=1e-5)
    assert matrix["norm"] > 0


def test_inserted_layers_are_set_against_what_they_began_as(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, DepthUpScaling(fraction=0.5))
    matrices = result(tmp_path / "run")["matrices"]
    assert len(matrices) == 21
    assert {m["layer"] for m in matrices if m["norm"] > 0} == {2}
    down = next(m for m in matrices if m["layer"] == 2 and m["kind"] == "down")
    assert down["base_norm"] == 0.0  # silent at first


def test_a_frozen_llm_has_not_moved(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, AdaptorOnly(), tracker=True)
    found = result(tmp_path / "run")
    assert (found["relative"], found["overlap"]) == (0.0, {})
    assert all(matrix["norm"] == 0 < matrix["base_norm"] for matrix in found["matrices"])


@pytest.mark.parametrize("case", ["full", "lora"])
def test_overlap_is_the_rank_correlation_with_the_importance_at_the_start(
    case: str, tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    run = tmp_path / "run"
    model = fit(run, tiny_llm_dir, tiny_whisper_dir, CASES[case](), tracker=True)
    before = load_file(tiny_llm_dir / "model.safetensors")
    snapshot = Snapshot.load(run / "importance/heldout_text/step=000000")
    overlap = result(run)["overlap"]["heldout_text"]
    assert overlap["estimator"] == "taylor"
    for place, matrix in enumerate(overlap["matrices"]):
        layer = model.llm.get_submodule(matrix["name"].removesuffix(".weight"))
        change = (acting(layer) - before[matrix["name"]].double()).abs().numpy()
        for side, axis in (("rows", 1), ("columns", 0)):
            expected = spearmanr(getattr(snapshot, side)["taylor"][place], change.sum(axis)).statistic
            assert matrix[side]["spearman"] == pytest.approx(expected, abs=0.02)
            assert 0 < matrix[side]["shuffled_p95"] < 1
            assert (matrix[side]["random_median"] is None) == (case == "full")


def test_a_run_with_it_is_bit_identical_to_one_without(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    models = []
    for callback in (True, False):
        (tmp_path / str(callback)).mkdir()
        models.append(
            fit(tmp_path / str(callback) / "run", tiny_llm_dir, tiny_whisper_dir, LoRA(r=4), callback=callback)
        )
        models[-1].random = torch.rand(1), np.random.rand()  # type: ignore[assignment]
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
        assert first.requires_grad == second.requires_grad
    assert models[0].random == models[1].random
    assert models[0].reference._copy is None


def test_a_trial_run_leaves_nothing(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, LoRA(r=4), fast_dev_run=True)
    assert not (tmp_path / "run" / FILE).exists()
    with pytest.raises(ValueError, match="shuffles and draws must be 1 or more, got 0 and 20"):
        WeightChange(shuffles=0)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    script = tmp_path / "fit.py"  # Lightning starts the second process with the same command: a file, not `-c`
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom textkeep.lightning_modules import LoRA\n"
        "from tests.callbacks.test_weight_change import fit\n"
        "run, llm, whisper, processes = *map(Path, sys.argv[1:4]), int(sys.argv[4])\n"
        "fit(run, llm, whisper, LoRA(r=4), devices=processes, strategy='ddp' if processes > 1 else 'auto')\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for processes in (1, 2):
        run = tmp_path / str(processes) / "run"
        run.parent.mkdir()
        words = [sys.executable, str(script), str(run), str(tiny_llm_dir), str(tiny_whisper_dir), str(processes)]
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-2000:]
    found = result(tmp_path / "2/run")
    assert found["relative"] > 0
    assert [m["name"] for m in found["matrices"]] == [m["name"] for m in result(tmp_path / "1/run")["matrices"]]

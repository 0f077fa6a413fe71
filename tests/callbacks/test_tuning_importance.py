"""The importance that a tuning strategy asks for: measured when it should be, used at once, kept over a resume."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from transformers import AutoModelForCausalLM

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import ImportanceTracker, TuningImportance
from textkeep.callbacks.importance import probing
from textkeep.datamodules import Probe
from textkeep.importance import Snapshot
from textkeep.importance.masks import unpack
from textkeep.lightning_modules import FullFineTuning, ImportanceMask, ImportanceRates, SpeechLLM, WeightMask
from textkeep.lightning_modules.tuning.rates.importance_rates import importance_multipliers

ROOT = Path(__file__).parents[2]


class Rates(Callback):
    """What the optimizer used at each step, and with which factors."""

    def __init__(self) -> None:
        self.lrs: list[dict[str, float]] = []
        self.factors: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.lrs.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        self.factors.append(pl_module.tuning.multipliers(pl_module.llm))


def adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)


def fit(
    folder: Path,
    llm: Path,
    whisper: Path,
    callbacks: list[Callback],
    every: int = 0,
    protect: WeightMask | None = None,
    ckpt: str | None = None,
    **more: Any,
) -> SpeechLLM:
    data_folder = folder.parent / "data"
    data_folder.mkdir(exist_ok=True)
    probes = {"heldout_text": Probe(str(data_folder / "val.jsonl"), "text", examples=5, batch_size=2)}
    rates = ImportanceRates(probe="heldout_text", every_n_steps=every)
    tuning = FullFineTuning(rates=rates, protect=protect)
    model = make_model(llm, whisper, tuning=tuning, optimizer=adamw, lr_schedule="linear", warmup_ratio=0.25)
    for layer in model.llm.model.layers:
        layer.self_attn.attention_dropout = 0.0  # a resumed run draws other random numbers
    trainer = make_trainer(folder, callbacks, **{"max_epochs": -1, "max_steps": 8, "limit_val_batches": 0, **more})
    data = make_data(data_folder, probes=probes)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt, weights_only=False)  # the parts are among its hyperparameters
    return model


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Step and probe of every measurement."""
    calls: list[tuple[int, str]] = []
    probe = probing.probe

    def counted(*args: Any, **options: Any) -> Snapshot:
        calls.append((options["step"], options["name"]))
        return probe(*args, **options)

    monkeypatch.setattr(probing, "probe", counted)
    return calls


def test_the_first_step_has_the_rates_of_equation_3(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, measured: list
) -> None:
    """What is set equals equation 3 on what the tracker wrote of the untouched model, measured once for both."""
    rates = Rates()
    tracker = ImportanceTracker(estimators=("taylor",), replicates=0, at_end=False)
    fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, [tracker, TuningImportance(), rates, LearningRateMonitor()])
    assert measured == [(0, "heldout_text")]
    snapshot = Snapshot.load(tmp_path / "run/importance/heldout_text/step=000000")
    factors = importance_multipliers([*snapshot.shares("taylor").values()], 0.4)
    assert sorted(factors) == pytest.approx([0.6, 1.0])
    assert rates.factors == [factors] * 8
    for step, lrs in enumerate(rates.lrs):  # linear: up over 2 steps, down over 6
        schedule = step / 2 if step < 2 else (8 - step) / 6
        expected = {"adaptor": 1.0, "llm.00": factors[0], "llm.01": factors[1], "llm.other": 1.0}
        assert lrs == pytest.approx({name: 0.01 * schedule * factor for name, factor in expected.items()})
    with (tmp_path / "run/metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("lr-AdamW/llm.00")]
    assert [float(row["lr-AdamW/llm.00"]) for row in logged] == pytest.approx([lrs["llm.00"] for lrs in rates.lrs])
    assert [float(row["lr-AdamW/llm.01"]) for row in logged] == pytest.approx([lrs["llm.01"] for lrs in rates.lrs])


def test_rates_are_measured_again_every_n_steps(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, measured: list
) -> None:
    rates = Rates()
    callbacks = [TuningImportance(), rates]
    fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, callbacks, every=3, accumulate_grad_batches=2)
    assert [step for step, _ in measured] == [0, 3, 6]
    for step, (lrs, factors) in enumerate(zip(rates.lrs, rates.factors, strict=True)):
        assert lrs["llm.00"] == pytest.approx(lrs["llm.other"] * factors[0])
        assert lrs["llm.01"] == pytest.approx(lrs["llm.other"] * factors[1])
        assert factors == rates.factors[step // 3 * 3]


def test_a_resumed_run_goes_on_with_the_same_rates(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, measured: list
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    first, second = Rates(), Rates()

    def saver(folder: Path) -> ModelCheckpoint:
        return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=4, save_top_k=-1)

    models = (tiny_llm_dir, tiny_whisper_dir)
    options = {"every": 3, "enable_checkpointing": True}
    expected = fit(whole, *models, [TuningImportance(), first, saver(whole)], **options)
    del measured[:]
    resumed = fit(parted, *models, [TuningImportance(), second], ckpt=str(whole / "step=4.ckpt"), **options)
    assert [step for step, _ in measured] == [6]
    assert second.lrs == first.lrs[4:]
    assert second.factors == first.factors[4:]
    assert all(torch.equal(p, q) for p, q in zip(expected.parameters(), resumed.parameters(), strict=True))


def test_without_the_callback_the_fit_does_not_begin(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"rates waits for a measurement .* add the callback TuningImportance"):
        fit(tmp_path / "run", tiny_llm_dir, tiny_whisper_dir, [])


def test_an_unknown_probe_is_named_before_anything_is_loaded(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    tuning = FullFineTuning(rates=ImportanceRates(probe="heldout"))
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data", probes={"heldout_text": Probe(str(tmp_path / "data/val.jsonl"))})
    trainer = make_trainer(tmp_path, [TuningImportance()])
    with pytest.raises(ValueError, match=r"tuning\.rates: probe 'heldout' is not .* \(allowed: heldout_text\)"):
        trainer.fit(make_model(tiny_llm_dir, tiny_whisper_dir, tuning=tuning), datamodule=data)


def top(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    return snapshot.top("taylor", 0.1)


def check_protected(model: SpeechLLM, masks: dict[str, torch.Tensor], llm: Path) -> None:
    """The masked weights are bit for bit those of the LLM's files, and the others are not."""
    untouched = dict(AutoModelForCausalLM.from_pretrained(llm).named_parameters())
    for name, mask in masks.items():
        now = model.llm.get_parameter(name)
        assert torch.equal(now[mask], untouched[name][mask])
        assert (now[~mask] != untouched[name][~mask]).float().mean() > 0.99


def test_protected_weights_stay_over_a_resume(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, measured: list
) -> None:
    """The mask is the tracker's of the untouched model, measured once; the resumed run has it from the checkpoint."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    models = (tiny_llm_dir, tiny_whisper_dir)
    mask = {"probe": "heldout_text", "fraction": 0.1}
    tracker = ImportanceTracker(
        estimators=("taylor",), top_fraction=0.1, replicates=0, at_checkpoints=False, at_end=False
    )
    saver = ModelCheckpoint(whole, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    callbacks = [tracker, TuningImportance(), saver]
    options = {"enable_checkpointing": True, "gradient_clip_val": 0.5}
    expected = fit(whole, *models, callbacks, protect=ImportanceMask(**mask), **options)
    assert measured == [(0, "heldout_text")]
    masks = top(Snapshot.load(whole / "importance/heldout_text/step=000000"))
    check_protected(expected, masks, tiny_llm_dir)
    middle = str(whole / "step=4.ckpt")
    resumed = fit(parted, *models, [TuningImportance()], protect=ImportanceMask(**mask), ckpt=middle, **options)
    assert len(measured) == 1
    check_protected(resumed, masks, tiny_llm_dir)
    assert all(torch.equal(p, q) for p, q in zip(expected.parameters(), resumed.parameters(), strict=True))


@pytest.mark.slow
def test_two_ranks_have_the_same_rates_and_weights(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    command = [sys.executable, "-m", "tests.callbacks.test_tuning_importance"]
    words = [*command, str(tmp_path / "run"), str(tiny_llm_dir), str(tiny_whisper_dir)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=280)
    ranks = [json.loads((tmp_path / "run" / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["factors"][0] != ranks[0]["factors"][-1]
    assert ranks[0]["protected"] > 1000


if __name__ == "__main__":
    run, llm_dir, whisper_dir = (Path(argument) for argument in sys.argv[1:])
    seen, guard = Rates(), ImportanceMask(probe="heldout_text", fraction=0.1)
    trained = fit(
        run, llm_dir, whisper_dir, [TuningImportance(), seen], every=3, protect=guard, devices=2, strategy="ddp"
    )
    chosen = {
        name: unpack(bits.numpy(), trained.llm.get_parameter(name).shape)
        for name, bits in guard.bits(trained.llm).items()
    }
    check_protected(trained, chosen, llm_dir)
    sums = {name: parameter.double().sum().item() for name, parameter in trained.named_parameters()}
    found = {
        "factors": seen.factors,
        "lrs": seen.lrs,
        "sums": sums,
        "protected": int(sum(m.sum() for m in chosen.values())),
    }
    (run / f"rank{trained.global_rank}.json").write_text(json.dumps(found))

"""Every precision with every way to train: measured, continued, asked and exported as it was trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from textkeep.cli.main import main
from textkeep.evaluation import read_predictions
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules.llm.lora_layers import merge_lora

from ..lightning_modules.test_weight_pulls import snapshot_of

TYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16}
"""Of the weights; float32 at the other precisions."""
CLOSE = {"64-true": 1e-5, "bf16-true": 0.01, "bf16-mixed": 0.01, "16-mixed": 2e-3}
"""Relative difference that is allowed to a figure of 32-true."""
CALLBACKS: list[dict[str, Any]] = [
    {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 2, "save_top_k": -1}},
    {"class_path": "ImportanceTracker", "init_args": {"replicates": 0, "estimators": ["taylor", "fisher"]}},
    {"class_path": "Retention", "init_args": {"max_items": 3}},
    {"class_path": "Divergence", "init_args": {"max_items": 3}},
    {"class_path": "SubspaceOverlap", "init_args": {"k": 4}},
    {"class_path": "WeightChange", "init_args": {"shuffles": 1, "draws": 1}},
]
CE: dict[str, Any] = {"class_path": "AnswerCrossEntropy"}
ARMS: dict[str, dict[str, Any]] = {
    "full": {"objectives": [CE, {"class_path": "EWC", "init_args": {"snapshot": "@SNAPSHOT", "weight": 100.0}}]},
    "distilled": {"objectives": [CE, {"class_path": "TextTwinDistillation"}, {"class_path": "L2SP"}]},
    "lora": {
        "tuning": {"class_path": "LoRA", "init_args": {"r": 2}},
        "objectives": [
            CE,
            {
                "class_path": "TextTwinDistillation",
                "init_args": {"teacher": {"class_path": "CachedTeacher", "init_args": {"folder": "@RUN/teacher"}}},
            },
        ],
    },
    "oplora": {"tuning": {"class_path": "OPLoRA", "init_args": {"r": 2, "k": 4}}},
    "gated": {
        "tuning": {"class_path": "LoRA", "init_args": {"r": 2, "gate": {"class_path": "SpeechTurns"}}},
        "objectives": [CE, {"class_path": "CTCAlignment"}],
    },
    "dora": {"tuning": {"class_path": "LoRA", "init_args": {"r": 2, "use_dora": True}}},
    "pissa": {"tuning": {"class_path": "LoRA", "init_args": {"r": 2, "start": {"class_path": "PiSSA"}}}},
    "olora": {"tuning": {"class_path": "LoRA", "init_args": {"r": 2, "start": {"class_path": "OLoRA"}}}},
    "eva": {"tuning": {"class_path": "LoRA", "init_args": {"r": 2, "start": {"class_path": "EVA"}}}},
    "inserted": {"tuning": {"class_path": "DepthUpScaling", "init_args": {"fraction": 0.5}}},
}


MAIN = ("full", "distilled", "lora", "oplora", "gated")
QUICK = (("full", "bf16-true"), ("oplora", "64-true"))
CELLS = [
    pytest.param(arm, precision, marks=[] if (arm, precision) in QUICK else pytest.mark.slow)
    for arm in ARMS
    for precision in CLOSE
    if arm in MAIN or precision == "bf16-true"
]


def config(arm: str, precision: str, settings: dict[str, Any], folder: Path) -> Path:
    """A run of four steps with everything that measures."""
    manifest = settings["data"]["train"][0]
    trainer = {
        **settings["trainer"],
        "default_root_dir": str(folder / "run"),
        "max_steps": 4,
        "val_check_interval": 2,
        "precision": precision,
        "enable_progress_bar": False,
        "logger": {"class_path": "RunCSVLogger"},
        "callbacks": CALLBACKS,
    }
    if precision == "16-mixed":  # Lightning takes bfloat16 on a CPU unless it is given the plugin
        scaler = {"class_path": "torch.amp.GradScaler", "init_args": {"device": "cpu", "init_scale": 128.0}}
        plugin = {"precision": precision, "device": "cpu", "scaler": scaler}
        name = "lightning.pytorch.plugins.precision.MixedPrecision"
        trainer |= {"precision": None, "plugins": [{"class_path": name, "init_args": plugin}]}
    probes = {name: {"source": manifest, "modality": name, "examples": 3} for name in ("text", "speech")}
    rate = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    model = {**settings["model"], **ARMS[arm], "optimizer": rate, "lr_schedule": "constant"}
    data = {**settings["data"], "train_modalities": "both", "tokens_per_batch": 160, "probes": probes}
    text = yaml.safe_dump({**settings, "trainer": trainer, "model": model, "data": data})
    path = folder / "run.yaml"
    path.write_text(text.replace("@SNAPSHOT", str(folder / "fisher")).replace("@RUN", str(folder)))
    return path


def fitted(arm: str, precision: str, settings: dict[str, Any], folder: Path) -> Path:
    """The run directory."""
    if arm == "full":
        snapshot_of(AutoModelForCausalLM.from_pretrained(settings["model"]["llm"]), folder / "fisher")
    assert main(["fit", "--config", str(config(arm, precision, settings, folder))]) == 0
    assert torch.get_default_dtype() == torch.float32
    return folder / "run"


def figures(run: Path) -> dict[str, list[float]]:
    """Metric key -> its values in the order of the steps."""
    found: dict[str, list[float]] = {}
    with (run / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key.startswith(("train/", "val/", "forgetting/", "misalignment/", "importance/")):
                    found.setdefault(key, []).append(float(value))
    return found


@pytest.fixture(scope="module")
def exact(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The figures of full fine-tuning in 32-true."""
    return figures(fitted("full", "32-true", tiny_settings, tmp_path_factory.mktemp("exact")))


@pytest.mark.parametrize(("arm", "precision"), CELLS)
def test_a_run_is_measured_continued_asked_and_exported_as_it_was_trained(
    arm: str,
    precision: str,
    exact: dict[str, list[float]],
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fitted(arm, precision, tiny_settings, tmp_path)
    check_figures(figures(run), exact, arm, CLOSE[precision])
    model = SpeechLLM.from_run(run)
    assert {p.dtype for p in model.parameters()} == {TYPES.get(precision, torch.float32)}
    check_continuation(run, tmp_path)
    check_answers(run, capsys)
    check_export(model, run, tmp_path / "out")


def check_figures(found: dict[str, list[float]], exact: dict[str, list[float]], arm: str, allowed: float) -> None:
    """What 32-true measures of the untouched model is measured here, and everything stays finite."""
    assert torch.tensor([value for values in found.values() for value in values]).isfinite().all()
    assert found["forgetting/kl"][0] == pytest.approx(0, abs=1e-6)
    keys = ["misalignment/kl"]
    if arm != "inserted":  # which has more layers to measure
        keys += [f"importance/{probe}/taylor/total" for probe in ("text", "speech")]
    for key in keys:
        assert found[key][0] == pytest.approx(exact[key][0], rel=allowed, abs=5e-7), key  # sums of float32
    for key in ("train/loss", "val/speech_ce", "val/text_ce") if arm == "full" else ():
        assert found[key] == pytest.approx(exact[key], rel=allowed), key


def check_continuation(run: Path, folder: Path) -> None:
    """Two steps and two more are four, bit for bit, optimizer included."""
    again = folder / "again"
    words = ["--trainer.default_root_dir", str(again), "--ckpt_path", str(run / "checkpoints/step=000002.ckpt")]
    only = folder / "only.yaml"
    only.write_text(yaml.safe_dump({"trainer": {"callbacks": CALLBACKS[:1]}}))
    assert main(["fit", "--config", str(folder / "run.yaml"), "--config", str(only), *words]) == 0
    files = [root / "checkpoints/step=000004.ckpt" for root in (run, again)]
    whole, parts = (torch.load(file, weights_only=True) for file in files)
    (before,), (after,) = whole["optimizer_states"], parts["optimizer_states"]
    assert after["param_groups"] == before["param_groups"]
    for one, other in ((whole["state_dict"], parts["state_dict"]), (before["state"], after["state"])):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def check_answers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``ask`` answers what the run answered at its last step."""
    records = read_predictions(run / "evaluation/step=000004.jsonl")
    record = next(record for record in records if record.modality == "text")
    capsys.readouterr()
    assert main(["ask", str(run), "--text", record.question, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == record.prediction


def check_export(model: SpeechLLM, run: Path, out: Path) -> None:
    """The export holds the trained weights bit for bit, adapters merged in float32 at least."""
    assert main(["export", str(run), "-o", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    exported = dict(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).named_parameters())
    if model.tuning.mergeable:
        model.llm.to(torch.promote_types(model.llm.dtype, torch.float32))
        merge_lora(model.llm)
        for name, parameter in model.llm.named_parameters():
            assert torch.equal(exported[name], parameter.float()), name

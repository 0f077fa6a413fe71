"""Importance in trainings of Hugging Face's: the real ``Trainer``, TRL's ``SFTTrainer``, two processes, a resume."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from tests.support.house import ROOT
from tests.support.ports import free_port
from tests.support.processes import child_environment
from textkeep.callbacks import ImportanceTrainerCallback
from textkeep.cli.report import main as report
from textkeep.foundation.errors import UserError
from textkeep.importance import Snapshot, compare, probe
from textkeep.inference import text_probes, track
from textkeep.runs import Run

PAGE = (ROOT / "docs/other_trainers.md").read_text(encoding="utf-8")
TEXTS = [f"the number {i} comes after the number {i - 1} in every list" for i in range(1, 25)]
PASSAGES = "\n\n".join(f"A ship of {i} sails left the harbour and came back in the evening." for i in range(6))


@pytest.fixture(scope="module")
def probes(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("texts") / "ships.txt"
    path.write_text(PASSAGES)
    return text_probes(tiny_tokenizer, {"ships": path}, examples=6, tokens=24, batch_size=2)


def model(folder: Path) -> PreTrainedModel:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.1)


def rows(tokenizer: Any) -> Dataset:
    made = [tokenizer(text)["input_ids"][:16] for text in TEXTS]
    shortest = min(map(len, made))
    return Dataset.from_list([{"input_ids": ids[:shortest], "labels": ids[:shortest]} for ids in made])


def train(
    folder: Path, llm: PreTrainedModel, data: Dataset, callbacks: list[Any], resume: bool = False, **more: Any
) -> Trainer:
    settings = {"max_steps": 6, "save_steps": 3, "logging_steps": 1, "learning_rate": 1e-2, **more}
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True, seed=3, **settings
    )
    trainer = Trainer(llm, arguments, train_dataset=data, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-3") if resume else None)
    return trainer


def weights(llm: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in llm.parameters()])


def summary(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "importance/summary.jsonl").read_text().splitlines()]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_training_is_followed_resumed_and_not_touched(
    tiny_llm_dir: Path, tiny_tokenizer: Any, probes: dict[str, Any], tmp_path: Path
) -> None:
    data = rows(tiny_tokenizer)
    alone = train(tmp_path / "alone", model(tiny_llm_dir), data, [])
    followed = ImportanceTrainerCallback(probes, tmp_path / "run", ["taylor", "fisher"], replicates=50)
    measured = train(tmp_path / "measured", model(tiny_llm_dir), data, [followed])
    assert torch.equal(weights(measured.model), weights(alone.model))
    losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (alone, measured)]
    assert losses[0] == losses[1]

    lines = summary(tmp_path / "run")
    assert [(line["step"], line["estimator"]) for line in lines] == [
        (step, name) for step in (0, 3, 6) for name in ("taylor", "fisher")
    ]
    assert all(line["plain"] for line in lines)
    # What it wrote is what a measurement of the very weights gives, and the shift is to the untouched model.
    first, last = (Snapshot.load(tmp_path / f"run/importance/ships/step=00000{step}") for step in (0, 6))
    for snapshot, llm in ((first, model(tiny_llm_dir)), (last, measured.model)):
        again = probe(llm, probes["ships"], ["taylor", "fisher"], name="ships")
        np.testing.assert_array_equal(snapshot.losses, again.losses)
        assert snapshot.shares("taylor") == again.shares("taylor")
    assert (
        lines[-2]["shift"]["metrics"]["js"]["value"]
        == compare(first, last, "taylor", 50).as_dict()["metrics"]["js"]["value"]
    )

    run = Run.open(tmp_path / "run")
    assert [value for _, value in run.metrics["train/loss"]] == losses[1]
    assert [step for step, _ in run.metrics["importance/ships/taylor/js"]] == [0, 3, 6]
    assert run.importance.of("ships", "taylor")[-1]["step"] == 6

    # Gone on from the checkpoint: the same weights, the same lines, nothing twice.
    goes_on = ImportanceTrainerCallback(probes, tmp_path / "run", ["taylor", "fisher"], replicates=50)
    resumed = train(tmp_path / "measured", model(tiny_llm_dir), data, [goes_on], resume=True)
    assert torch.equal(weights(resumed.model), weights(alone.model))
    assert without_times(summary(tmp_path / "run")) == without_times(lines)
    assert [value for _, value in Run.open(tmp_path / "run").metrics["train/loss"]] == losses[1]

    with pytest.raises(UserError, match=r"run holds measurements of another run; allowed: a directory of its own"):
        train(tmp_path / "other", model(tiny_llm_dir), data, [ImportanceTrainerCallback(probes, tmp_path / "run")])
    assert without_times(summary(tmp_path / "run")) == without_times(lines)


def test_weights_that_are_exchanged_at_the_end_are_not_measured_as_the_last(
    tiny_llm_dir: Path, tiny_tokenizer: Any, probes: dict[str, Any], tmp_path: Path
) -> None:
    data = rows(tiny_tokenizer)
    callback = ImportanceTrainerCallback(probes, tmp_path / "run", ["taylor"], at_checkpoints=False, replicates=0)
    arguments = TrainingArguments(
        str(tmp_path / "best"), per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
        max_steps=4, save_steps=2, eval_steps=2, eval_strategy="steps", learning_rate=1.0, load_best_model_at_end=True,
        metric_for_best_model="eval_loss", greater_is_better=True,
    )  # fmt: skip
    before = model(tiny_llm_dir)
    trainer = Trainer(before, arguments, train_dataset=data, eval_dataset=data, callbacks=[callback])
    trainer.train()
    assert [line["step"] for line in summary(tmp_path / "run")] == [0, 4]
    of_the_best = probe(trainer.model, probes["ships"], ["taylor"]).loss
    assert trainer.state.best_global_step == 2
    assert summary(tmp_path / "run")[-1]["loss"] != pytest.approx(of_the_best, rel=1e-3)
    assert "val/loss" in Run.open(tmp_path / "run").metrics


@pytest.mark.slow
def test_supervised_fine_tuning_of_trl_with_lora(
    tiny_llm_dir: Path, tiny_tokenizer: Any, probes: dict[str, Any], tmp_path: Path
) -> None:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    callback = ImportanceTrainerCallback(probes, tmp_path / "run", ["taylor"], every_n_steps=2, replicates=0)
    arguments = SFTConfig(
        str(tmp_path / "sft"), per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True, bf16=False,
        max_steps=4, save_steps=4, logging_steps=1, learning_rate=1e-2, max_length=32, seed=3,
    )  # fmt: skip
    trainer = SFTTrainer(
        model(tiny_llm_dir),
        arguments,
        train_dataset=Dataset.from_dict({"text": TEXTS}),
        processing_class=tiny_tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear"),
        callbacks=[callback],
    )
    trainer.train()
    lines = summary(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 2, 4]
    merged = trainer.model.merge_and_unload()
    assert lines[-1]["loss"] == pytest.approx(probe(merged, probes["ships"], ["taylor"]).loss, abs=1e-5)
    assert lines[0]["loss"] == pytest.approx(probe(model(tiny_llm_dir), probes["ships"], ["taylor"]).loss, abs=1e-6)


def test_a_loop_of_ones_own(tiny_llm_dir: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "ships.txt"
    path.write_text(PASSAGES)
    llm = model(tiny_llm_dir)
    settings = {"estimators": ["taylor"], "examples": 6, "tokens": 24}
    follow = track(llm, tiny_tokenizer, {"ships": path}, tmp_path / "run", **settings)
    assert follow.measure(0)["importance/ships/taylor/js"] == 0
    with torch.no_grad():
        next(iter(llm.model.layers[0].mlp.parameters())).mul_(3)
    shifted = follow.measure(5)["importance/ships/taylor/js"]
    assert shifted > 0
    goes_on = track(
        llm, tiny_tokenizer, {"ships": path}, tmp_path / "run", estimators=["taylor"], examples=6, tokens=24, step=5
    )
    assert goes_on.measure(7)["importance/ships/taylor/js"] == shifted
    assert [line["step"] for line in summary(tmp_path / "run")] == [0, 5, 7]
    with pytest.raises(UserError, match="importance: a probe is missing"):
        track(llm, tiny_tokenizer, {}, tmp_path / "none")


TWO = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from tests.callbacks.test_trainer_callback import model, rows, train
from textkeep.callbacks import ImportanceTrainerCallback
from textkeep.cli.report import main as report
from textkeep.inference import text_probes

folder, llm, texts = map(Path, sys.argv[1:])
tokenizer = AutoTokenizer.from_pretrained(llm)
probes = text_probes(tokenizer, {"ships": texts}, examples=6, tokens=24, batch_size=2)
follow = ImportanceTrainerCallback(probes, folder / "run", ["taylor"], replicates=0)
train(folder / "trained", model(llm), rows(tokenizer), [follow], max_steps=2, save_steps=2, ddp_backend="gloo")
"""


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tiny_llm_dir: Path, probes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "ships.txt").write_text(PASSAGES)
    (tmp_path / "two.py").write_text(TWO)
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    line = [sys.executable, str(tmp_path / "two.py"), str(tmp_path), str(tiny_llm_dir), str(tmp_path / "ships.txt")]
    ranks = [
        subprocess.Popen(line, env=child_environment(RANK=rank, LOCAL_RANK=rank, PYTHONPATH=str(ROOT), **together))
        for rank in ("0", "1")
    ]
    try:
        assert [rank.wait(240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    lines = summary(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 2]
    alone = probe(model(tiny_llm_dir), probes["ships"], ["taylor"])
    assert lines[0]["examples"] == 6
    assert lines[0]["loss"] == pytest.approx(alone.loss, abs=1e-6)
    assert lines[0]["total"] == pytest.approx(alone.total("taylor"), rel=1e-5)


def test_the_documents_examples_run(tiny_llm_dir: Path, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    trainer_block, loop = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    arguments = TrainingArguments(
        "out", per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True, max_steps=1, save_steps=9
    )
    given = {"model": model(tiny_llm_dir), "tokenizer": tiny_tokenizer, "data": rows(tiny_tokenizer)}
    exec(trainer_block, {**given, "arguments": arguments})
    assert sorted({line["step"] for line in summary(Path("outputs/mine"))}) == [0, 1]
    exec(loop, {**given, "batches": range(100), "train": lambda model, batch: None})
    assert sorted({line["step"] for line in summary(Path("outputs/loop"))}) == [0, 100]
    for run in ("outputs/mine", "outputs/loop"):
        assert report([run]) == 0
        assert "plain_text" in Path(run, "report.html").read_text(encoding="utf-8")

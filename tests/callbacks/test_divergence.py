"""Forgetting and misalignment: their formulas, when they are measured, and what they leave behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import Divergence
from textkeep.evaluation import ItemDivergence, bootstrap_ratio, read_divergences, summarize_divergences


def summary_of(folder: Path) -> dict[int, dict[str, Any]]:
    return {line["step"]: line for line in map(json.loads, (folder / "summary.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Any:
    """A finished fit with the callback: (run directory, model, data, trainer)."""
    folder = tmp_path_factory.mktemp("divergence")
    model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(folder / "data")
    trainer = make_trainer(folder / "run", [Divergence()])
    trainer.fit(model, data)
    return folder / "run", model, data, trainer


def answers_of(llm: Any, batch: Any, embeds: torch.Tensor) -> np.ndarray:
    """Probabilities (tokens, vocabulary) at the answer tokens of a batch of one."""
    logits = llm(inputs_embeds=embeds, attention_mask=batch.attention_mask).logits[0, :-1]
    return softmax(logits[batch.labels[0, 1:] != -100].detach().double().numpy(), axis=-1)


def test_it_is_the_relative_entropy_of_single_items(fitted: Any, tiny_llm_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    run, model, data, trainer = fitted
    untouched = AutoModelForCausalLM.from_pretrained(tiny_llm_dir).eval()
    records = read_divergences(run / "evaluation/divergence" / f"step={trainer.global_step:06d}.jsonl")
    assert len(records) == 7
    found = {record.id: record for record in records}
    model.eval()
    for example in data.eval_pairs("val")[:3]:
        (text,), (speech,) = data.loader([example], "text"), data.loader([example], "speech")
        before = answers_of(untouched, text, untouched.get_input_embeddings()(text.input_ids))
        read = answers_of(model.llm, text, model.embed(text)["inputs_embeds"])
        heard = answers_of(model.llm, speech, model.embed(speech)["inputs_embeds"])
        record = found[example.id]
        assert record.tokens == len(read)
        assert record.forgetting == pytest.approx(rel_entr(before, read).sum(), rel=1e-3, abs=1e-6)
        assert record.misalignment == pytest.approx(rel_entr(read, heard).sum(), rel=1e-3, abs=1e-6)
        assert record.forgetting != pytest.approx(rel_entr(read, before).sum(), rel=1e-3)


def test_it_is_measured_at_the_start_at_validations_and_at_the_end(fitted: Any) -> None:
    run, model, _, trainer = fitted
    last = trainer.global_step
    summary = summary_of(run / "evaluation/divergence")
    assert sorted(summary) == [0, last // 2, last]
    assert abs(summary[0]["forgetting/kl"]) < 1e-6
    assert summary[0]["misalignment/kl"] > 0
    assert summary[last]["forgetting/kl"] > 1e-3
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    for key in ("forgetting/kl", "misalignment/kl"):
        logged = {int(row["step"]): float(row[key]) for row in rows if row.get(key)}
        assert logged == pytest.approx({step: line[key] for step, line in summary.items()})
        low, high = summary[last]["intervals"][key]
        assert low <= summary[last][key] <= high
    assert float(trainer.callback_metrics["forgetting/kl"]) == pytest.approx(summary[last]["forgetting/kl"])
    assert model.reference._copy is None  # the copy lives as long as it is needed


def test_a_test_has_its_own_folder_and_keys(fitted: Any, tmp_path: Path) -> None:
    _, model, data, _ = fitted
    trainer = make_trainer(tmp_path, [Divergence(max_items=3)])
    trainer.test(model, data, verbose=False)
    (line,) = summary_of(tmp_path / "evaluation/test/divergence").values()
    assert line["items"] == 3
    assert line["test/forgetting/kl"] == pytest.approx(float(trainer.callback_metrics["test/forgetting/kl"]))


def test_training_with_it_is_bit_identical(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    states = []
    for name, callbacks in (("without", []), ("with", [Divergence()])):
        model = make_model(tiny_llm_dir, tiny_whisper_dir)
        make_trainer(tmp_path / name, callbacks).fit(model, make_data(tmp_path / name))
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_text_alone_has_no_misalignment(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    from textkeep.datamodules import SpeechTextData

    path = tmp_path / "text.jsonl"
    rows = [{"id": str(i), "question": f"What is {i}?", "answers": [str(i)]} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = SpeechTextData(val=str(path))
    trainer = make_trainer(tmp_path, [Divergence()])
    trainer.validate(make_model(tiny_llm_dir, tiny_whisper_dir), data, verbose=False)
    (line,) = summary_of(tmp_path / "evaluation/divergence").values()
    assert abs(line["forgetting/kl"]) < 1e-6
    assert "misalignment/kl" not in line


def test_the_figures_are_per_token_over_all_items() -> None:
    records = [ItemDivergence("a", 2, 1.0, 3.0), ItemDivergence("b", 6, 2.0, 1.0), ItemDivergence("c", 4, 0.5)]
    summary = summarize_divergences(records)
    assert summary.values == {"forgetting/kl": 3.5 / 12, "misalignment/kl": 4 / 8}
    wanted = bootstrap_ratio([1.0, 2.0, 0.5], [2, 6, 4])
    assert wanted.low < 0
    assert summary.intervals["forgetting/kl"] == (0.0, wanted.high)  # a divergence has no negative limit


def test_damaged_records_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": "a", "tokens": 2}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:1: a divergence needs forgetting"):
        read_divergences(tmp_path / "x.jsonl")


DDP = """
import sys
from pathlib import Path
from textkeep.callbacks import Divergence
from tests.support.speech_run import make_data, make_model, make_trainer
llm, whisper, folder, devices = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
trainer = make_trainer(folder / f"run{devices}", [Divergence()], devices=devices, max_epochs=1,
                       strategy="ddp" if devices > 1 else "auto")
trainer.fit(make_model(llm, whisper), make_data(folder / "data"))
"""


@pytest.mark.slow
def test_two_processes_count_every_item_once(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(DDP)
    root = Path(__file__).parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    for devices in (1, 2):
        arguments = [sys.executable, str(script), str(tiny_llm_dir), str(tiny_whisper_dir), str(tmp_path), str(devices)]
        subprocess.run(arguments, env=env, cwd=root, check=True, timeout=200)
    one, two = (read_divergences(tmp_path / f"run{n}/evaluation/divergence/step=000000.jsonl") for n in (1, 2))
    assert [record.id for record in one] == [record.id for record in two]
    for a, b in zip(one, two, strict=True):
        assert a.misalignment == pytest.approx(b.misalignment, rel=1e-3)

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks.evaluations.item_scorer import exchange_clips
from textkeep.callbacks.evaluations.retention import Retention
from textkeep.datamodules import Example
from textkeep.evaluation import Prediction, qa_match, read_predictions, store_evaluation


def summary_of(run: Path) -> dict[int, dict[str, Any]]:
    lines = (run / "summary.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}


def by_item(records: list[Prediction]) -> dict[tuple[str, str], Prediction]:
    return {(record.id, record.modality): record for record in records}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Any:
    """A finished fit with the callback: (run directory, model, data, trainer)."""
    folder = tmp_path_factory.mktemp("retention")
    model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(folder / "data")
    trainer = make_trainer(folder / "run", [Retention()])
    trainer.fit(model, data)
    return folder / "run", model, data, trainer


def test_every_item_is_scored_before_step_0_at_validations_and_at_the_end(fitted: Any) -> None:
    run, _, _, trainer = fitted
    last = trainer.global_step
    summary = summary_of(run / "evaluation")
    assert sorted(summary) == [0, last // 2, last]
    for step, line in summary.items():
        records = read_predictions(run / "evaluation" / f"step={step:06d}.jsonl")
        # Seven pairs; the question without a clip is left out of both modalities.
        assert sorted(by_item(records)) == sorted((f"val-{i}", m) for i in range(7) for m in ("speech", "text"))
        assert line["items"] == 7
        for record in records:
            assert record.prediction is not None
            assert record.correct == qa_match(record.prediction, record.answers)
            assert (record.category, record.source) == ("count", "val")
            assert (record.shuffled_loss is None) == (record.modality == "text")
    assert "val/text_loss_change" not in summary[0]
    assert summary[last]["val/text_loss_change"] != 0


def test_losses_equal_those_of_single_items(fitted: Any) -> None:
    run, model, data, trainer = fitted
    records = by_item(read_predictions(run / "evaluation" / f"step={trainer.global_step:06d}.jsonl"))
    model.eval()
    for example in data.eval_pairs("val")[:3]:
        for modality in ("speech", "text"):
            (batch,) = data.loader([example], modality, answers=True)
            with torch.no_grad():
                total, tokens = model.answer_losses(batch)
            record = records[example.id, modality]
            assert record.tokens == tokens.item()
            assert record.loss == pytest.approx(total.item() / tokens.item(), rel=1e-4)


def test_summary_is_what_the_records_say(fitted: Any) -> None:
    run, _, _, trainer = fitted
    before, after = (
        by_item(read_predictions(run / "evaluation" / f"step={step:06d}.jsonl")) for step in (0, trainer.global_step)
    )
    line = summary_of(run / "evaluation")[trainer.global_step]
    speech = [record for (_, modality), record in after.items() if modality == "speech"]
    tokens = sum(r.tokens for r in speech)
    gap = sum((r.shuffled_loss - r.loss) * r.tokens for r in speech) / tokens  # type: ignore[operator]
    assert line["val/hearing_gap"] == pytest.approx(gap)
    low, high = line["intervals"]["val/hearing_gap"]
    assert low <= gap <= high
    change = sum((r.loss - before[r.id, "speech"].loss) * r.tokens for r in speech) / tokens  # type: ignore[operator]
    assert line["val/speech_loss_change"] == pytest.approx(change)
    assert line["val/speech_accuracy"] == sum(bool(r.correct) for r in speech) / 7


def test_shuffled_loss_is_that_of_another_items_clip(fitted: Any) -> None:
    run, model, data, trainer = fitted
    records = by_item(read_predictions(run / "evaluation" / f"step={trainer.global_step:06d}.jsonl"))
    pairs = [example for example in data.eval_pairs("val") if example.audio is not None]
    originals = {example.id: example for example in pairs}
    model.eval()
    for swapped in exchange_clips(pairs, seed=0):
        assert swapped.audio != originals[swapped.id].audio
        assert swapped.answers == originals[swapped.id].answers
        (batch,) = data.loader([swapped], "speech", answers=True)
        with torch.no_grad():
            total, tokens = model.answer_losses(batch)
        assert records[swapped.id, "speech"].shuffled_loss == pytest.approx(total.item() / tokens.item(), rel=1e-4)


def test_figures_reach_the_logger_at_the_global_step(fitted: Any) -> None:
    run, _, _, trainer = fitted
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    logged = {int(row["step"]): float(row["val/hearing_gap"]) for row in rows if row.get("val/hearing_gap")}
    summary = summary_of(run / "evaluation")
    assert logged == pytest.approx({step: line["val/hearing_gap"] for step, line in summary.items()})
    # Checkpointing can monitor them.
    assert trainer.callback_metrics["val/text_accuracy"] == summary[trainer.global_step]["val/text_accuracy"]


def test_a_validation_reads_every_item_once_and_once_more_with_another_clip(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data")
    seen: list[tuple[str, str]] = []
    read = model.read

    def noted(batch: Any) -> Any:
        seen.extend(zip(batch.ids, batch.modality, strict=True))
        return read(batch)

    monkeypatch.setattr(model, "read", noted)
    for name in ("generate", "answer_losses"):
        monkeypatch.setattr(model, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
    trainer = make_trainer(tmp_path / "run", [Retention()])
    trainer.validate(model, data, verbose=False)
    ids = [f"val-{number}" for number in range(7)]
    assert sorted(seen) == sorted([(i, m) for i in ids for m in ("speech", "text")] + [(i, "speech") for i in ids])
    # What the step counted and what the callback kept are one measurement.
    records = read_predictions(tmp_path / "run/evaluation/step=000000.jsonl")
    for modality in ("speech", "text"):
        rows = [r for r in records if r.modality == modality]
        mean = sum(r.loss * r.tokens for r in rows) / sum(r.tokens for r in rows)  # type: ignore[operator]
        assert float(trainer.callback_metrics[f"val/{modality}_ce"]) == pytest.approx(mean, rel=1e-6)


def test_what_a_limited_validation_left_out_is_read_by_the_callback(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    found = {}
    for limit in (1.0, 1):  # all, and one batch
        model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data", eval_tokens_per_batch=90)
        trainer = make_trainer(tmp_path / str(limit), [Retention()], limit_val_batches=limit)
        trainer.validate(model, data, verbose=False)
        found[limit] = by_item(read_predictions(tmp_path / str(limit) / "evaluation/step=000000.jsonl"))
    assert found[1].keys() == found[1.0].keys()
    for key, record in found[1.0].items():
        assert record.prediction == found[1][key].prediction
        assert record.loss == pytest.approx(found[1][key].loss, rel=1e-5)


def test_training_with_it_is_bit_identical(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    states = []
    for name, callbacks in (("without", []), ("with", [Retention()])):
        model = make_model(tiny_llm_dir, tiny_whisper_dir)
        data = make_data(tmp_path / name, speed_perturb=[0.9, 1.1])
        make_trainer(tmp_path / name, callbacks).fit(model, data)
        states.append(model.state_dict())
        assert all(layer.training for layer in model.llm.model.layers)
        assert not model.encoder.training or any(p.requires_grad for p in model.encoder.parameters())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_it_follows_the_trainers_precision(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data")
        trainer = make_trainer(tmp_path / precision, [Retention(metrics=["loss"])], precision=precision)
        trainer.validate(model, data, verbose=False)
        losses[precision] = summary_of(tmp_path / precision / "evaluation")[0]["val/speech_answer_loss"]
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.02)
    assert losses["bf16-mixed"] != losses["32-true"]


def test_a_draw_of_items_stays_the_same_and_skipped_metrics_are_absent(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data")
    trainer = make_trainer(tmp_path, [Retention(max_items=3, metrics=["loss"])], max_epochs=1)
    trainer.fit(model, data)
    files = sorted((tmp_path / "evaluation").glob("step=*.jsonl"))
    chosen = [{record.id for record in read_predictions(path)} for path in files]
    assert len(chosen) == 2
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 3
    line = summary_of(tmp_path / "evaluation")[trainer.global_step]
    assert "val/text_answer_loss" in line
    assert not [key for key in line if "accuracy" in key or "hearing" in key]


def test_validate_names_the_step_of_the_checkpoint_and_test_keeps_its_own_folder(
    fitted: Any, tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    finished, _, data, trainer = fitted
    model = make_model(tiny_llm_dir, tiny_whisper_dir)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    step = trainer.global_step
    before = summary_of(run / "evaluation")[step]
    again = make_trainer(run, [Retention()])
    again.validate(model, data, ckpt_path=str(checkpoint), weights_only=False, verbose=False)
    after = summary_of(run / "evaluation")
    assert sorted(after) == [0, step // 2, step]
    assert after[step]["val/text_answer_loss"] == pytest.approx(before["val/text_answer_loss"])
    again.test(model, data, ckpt_path=str(checkpoint), weights_only=False, verbose=False)
    tested = summary_of(run / "evaluation" / "test")
    assert sorted(tested) == [step]
    assert tested[step]["items"] == 5
    assert "test/hearing_gap" in tested[step]


def test_a_resumed_run_forgets_later_steps_and_keeps_the_baseline(
    fitted: Any, tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    finished, _, data, trainer = fitted
    run, step = Path(shutil.copytree(finished, tmp_path / "run")), trainer.global_step
    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    store_evaluation(run / "evaluation", "val", step + 7, read_predictions(run / "evaluation/step=000000.jsonl"), 1.0)
    again = make_trainer(run, [Retention()], max_epochs=3)
    again.fit(make_model(tiny_llm_dir, tiny_whisper_dir), data, ckpt_path=str(checkpoint), weights_only=False)
    summary = summary_of(run / "evaluation")
    assert sorted(summary) == [0, step // 2, step, again.global_step]
    assert not (run / "evaluation" / f"step={step + 7:06d}.jsonl").exists()
    assert "val/text_loss_change" in summary[again.global_step]


def test_a_trial_run_writes_nothing(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model, data = make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data")
    make_trainer(tmp_path, [Retention()], fast_dev_run=True).fit(model, data)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_items": 0}, r"Retention\.max_items: a positive number"),
        ({"max_new_tokens": -1}, r"Retention\.max_new_tokens: a positive number"),
        ({"metrics": []}, r"Retention\.metrics: some of \['accuracy'"),
        ({"metrics": ["acc"]}, "got \\['acc'\\]"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retention(**options)


def test_a_data_module_without_pairs_is_refused(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    trainer = make_trainer(tmp_path, [Retention()])
    with pytest.raises(ValueError, match="needs a data module with paired questions"):
        trainer.fit(make_model(tiny_llm_dir, tiny_whisper_dir), torch.utils.data.DataLoader([1, 2]))  # type: ignore[arg-type]


def test_clips_are_exchanged_in_one_cycle_whatever_the_order() -> None:
    examples = [
        Example(str(i), "q", ("a",), "a", Path(f"{i}.wav"), metadata={"seconds": i, "voice": i}) for i in range(9)
    ]
    swapped = {example.id: example for example in exchange_clips(examples, seed=1)}
    assert swapped == {example.id: example for example in exchange_clips(examples[::-1], seed=1)}
    assert {example.audio for example in swapped.values()} == {example.audio for example in examples}
    seen, current = [], "0"
    for _ in examples:
        seen.append(current)
        example = swapped[current]
        assert example.metadata == {"seconds": int(example.audio.stem), "voice": int(current)}
        current = example.audio.stem
    assert len(set(seen)) == 9
    assert exchange_clips(examples[:1], seed=1) == []


DDP = """
import sys
from pathlib import Path
from textkeep.callbacks.evaluations.retention import Retention
from tests.support.speech_run import make_data, make_model, make_trainer
llm, whisper, folder, devices = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
trainer = make_trainer(folder / f"run{devices}", [Retention()], devices=devices, max_epochs=1,
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
    one, two = (by_item(read_predictions(tmp_path / f"run{n}" / "evaluation" / "step=000000.jsonl")) for n in (1, 2))
    assert sorted(one) == sorted(two)
    assert len(two) == 14
    for key, record in one.items():
        assert record.loss == pytest.approx(two[key].loss, rel=1e-4)
        assert record.prediction == two[key].prediction
        if record.modality == "speech":
            assert record.shuffled_loss == pytest.approx(two[key].shuffled_loss, rel=1e-4)

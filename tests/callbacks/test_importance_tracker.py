from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from scipy.spatial.distance import jensenshannon
from scipy.stats import ttest_rel
from torch import nn
from torch.utils.data import DataLoader

from textkeep.callbacks.importance import importance_tracker
from textkeep.callbacks.importance.importance_tracker import ImportanceTracker
from textkeep.importance import NotFiniteError, Snapshot, compare, probe
from textkeep.importance.paired_losses import loss_changes

from ..importance.oracle import make_batch, tiny_llama


@dataclass
class Rows:
    """What the tracker needs of a batch."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    ids: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> Rows:
        return replace(self, input_ids=self.input_ids.to(device), labels=self.labels.to(device))


class Listener(LightningModule):
    """An LLM behind a front part with dropout, so that random numbers matter."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.llm = tiny_llama(tied=True).float()
        self.llm.config.attention_dropout = dropout / 2
        for layer in self.llm.model.layers:
            layer.self_attn.attention_dropout = dropout / 2
        self.front = nn.Sequential(nn.Linear(24, 24), nn.Dropout(dropout))

    def embed(self, batch: Rows) -> dict[str, torch.Tensor]:
        embeds = self.llm.get_input_embeddings()(batch.input_ids)
        return {
            "inputs_embeds": embeds + self.front(embeds),
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
        }

    def training_step(self, batch: Rows, batch_idx: int) -> torch.Tensor:
        loss = self.llm(**self.embed(batch), use_cache=False).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Rows, batch_idx: int) -> None:
        self.log("val/loss", self.llm(**self.embed(batch), use_cache=False).loss, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Data(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.probes = {"heldout_text": None, "speech": None}

    def _loader(self, seeds: range) -> DataLoader:
        return DataLoader([Rows(**make_batch(2, seed=s)) for s in seeds], batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader(range(8))

    def val_dataloader(self) -> DataLoader:
        return self._loader(range(20, 22))

    def probe_batches(self, name: str) -> list[Rows]:
        first = {"heldout_text": 50, "speech": 60}[name]
        return [Rows(**make_batch(3, seed=first + i, padded=True)) for i in range(2)]


def run(
    folder: Path,
    tracker: ImportanceTracker | None,
    steps: int = 6,
    ckpt: str | None = None,
    dropout: float = 0.2,
    data: LightningDataModule | None = None,
    **saving,
) -> tuple[Trainer, Listener]:
    torch.manual_seed(3)
    model = Listener(dropout)
    saver = ModelCheckpoint(dirpath=folder / "checkpoints", filename="{step}", save_top_k=-1, **saving)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        callbacks=[saver, *([tracker] if tracker else [])],
        logger=CSVLogger(folder, name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=2,
        val_check_interval=4,
        max_epochs=-1,
        log_every_n_steps=1,
    )
    trainer.fit(model, datamodule=data or Data(), ckpt_path=ckpt)
    return trainer, model


def measured_steps(folder: Path, probe: str = "heldout_text") -> list[int]:
    return sorted(int(p.name.split("=")[1]) for p in (folder / "importance" / probe).iterdir())


def test_training_is_bit_identical_with_and_without(tmp_path: Path) -> None:
    tracker = ImportanceTracker(estimators=("taylor", "fisher", "signed_taylor"), every_n_steps=1, replicates=20)
    trainer, model = run(tmp_path / "with", tracker, every_n_train_steps=2)
    plain_trainer, plain = run(tmp_path / "without", None, every_n_train_steps=2)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q), name
    states = trainer.optimizers[0].state_dict()["state"], plain_trainer.optimizers[0].state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for index in states[0]:
        for key, value in states[0][index].items():
            assert torch.equal(value, states[1][index][key])
    assert measured_steps(tmp_path / "with") == [0, 1, 2, 3, 4, 5, 6]


def test_a_checkpoint_saved_in_validation_is_measured_with_its_weights(tmp_path: Path) -> None:
    """Validation runs under inference mode: the measurement waits for the next training hook."""
    tracker = ImportanceTracker(("heldout_text",), at_end=False, replicates=0)
    run(tmp_path, tracker, steps=5, monitor="val/loss")  # validates every 4 batches = 2 steps
    assert measured_steps(tmp_path) == [0, 2, 4]
    for step in (2, 4):
        saved = torch.load(tmp_path / "checkpoints" / f"step={step}.ckpt", weights_only=False)
        model = Listener()
        model.load_state_dict(saved["state_dict"])
        expected = _direct(model)
        found = Snapshot.load(tmp_path / "importance/heldout_text" / f"step={step:06d}")
        np.testing.assert_allclose(found.scores("taylor"), expected.scores("taylor"), rtol=1e-6)


def _direct(model: Listener) -> Snapshot:
    model.eval()
    batches = []
    for rows in Data().probe_batches("heldout_text"):
        with torch.no_grad():
            batches.append({**model.embed(rows), "ids": rows.ids})
    return probe(model.llm, batches, "taylor")


def test_summary_loggers_and_history_agree(tmp_path: Path) -> None:
    tracker = ImportanceTracker(every_n_steps=3, at_checkpoints=False, replicates=50, top_fraction=0.05)
    run(tmp_path, tracker, steps=6, every_n_train_steps=3)
    lines = [json.loads(text) for text in (tmp_path / "importance/summary.jsonl").read_text().splitlines()]
    assert {(line["step"], line["probe"], line["estimator"]) for line in lines} == {
        (s, p, e) for s in (0, 3, 6) for p in ("heldout_text", "speech") for e in ("taylor", "fisher", "signed_taylor")
    }
    assert len(tracker.history) == len(lines)
    last = next(x for x in lines if (x["step"], x["probe"], x["estimator"]) == (6, "speech", "taylor"))
    js = last["shift"]["metrics"]["js"]
    first, end = (Snapshot.load(tmp_path / "importance/speech" / f"step={step:06d}") for step in (0, 6))
    ends = [list(snapshot.shares("taylor").values()) for snapshot in (first, end)]
    assert js["value"] == pytest.approx(jensenshannon(*ends, base=2)) != 0
    assert last["shares"] == pytest.approx(end.shares("taylor"))
    assert last["shift"] == compare(first, end, "taylor", replicates=50).as_dict()  # of what is on disk
    assert 0 <= js["low"] < js["high"] <= 1
    assert 0 < js["null"] < js["null_p95"] < 1
    assert 0 < last["shift"]["p_floor"] <= js["p"] <= 1
    assert 0 < last["shift"]["top_overlap"] <= 1
    assert last["shift"]["top_chance"] == 0.05
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    for key in (
        "taylor/js",
        "fisher/layer_01",
        "signed_taylor/total",
        "taylor/js_null",
        "taylor/js_p",
        "taylor/js_expected",
    ):
        assert f"importance/heldout_text/{key}" in header
    assert "importance/speech/loss" in header
    steps = [row.split(",")[header.split(",").index("step")] for row in rows]
    column = header.split(",").index("importance/speech/taylor/js")
    logged = {int(s): float(r.split(",")[column]) for s, r in zip(steps, rows, strict=True) if r.split(",")[column]}
    assert logged.keys() == {0, 3, 6}
    assert logged[0] == 0.0
    assert logged[6] == pytest.approx(js["value"])


class WithPlainText(Data):
    """The probe "speech" is plain text: all of a row is predicted but its first token."""

    def probe_batches(self, name: str) -> list[Rows]:
        batches = super().probe_batches(name)
        if name == "speech":
            for batch in batches:
                batch.labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
                batch.labels[:, 0] = -100
        return batches


def test_lines_say_what_is_plain_text_and_how_its_loss_changed(tmp_path: Path) -> None:
    run(tmp_path, ImportanceTracker(replicates=0, at_checkpoints=False), steps=4, data=WithPlainText())
    lines = [json.loads(text) for text in (tmp_path / "importance/summary.jsonl").read_text().splitlines()]
    assert {(line["probe"], line["plain"]) for line in lines} == {("heldout_text", False), ("speech", True)}
    assert not any("loss_change" in line for line in lines if line["step"] == 0)
    for line in lines:
        if line["step"] == 4:
            first, last = (Snapshot.load(tmp_path / f"importance/{line['probe']}/step=00000{step}") for step in (0, 4))
            test = ttest_rel(last.losses, first.losses)
            limits = test.confidence_interval(0.95)
            expected = [(last.losses - first.losses).mean(), limits.low, limits.high]
            assert line["loss_change"] == pytest.approx(expected)


def test_losses_are_paired_by_example(tmp_path: Path) -> None:
    before = probe(tiny_llama(), [make_batch(3, seed=1), make_batch(3, seed=2)], ["taylor"])
    after = probe(tiny_llama(seed=9), [make_batch(3, seed=2), make_batch(3, seed=1)], ["taylor"])
    before.meta["probe"]["ids"], after.meta["probe"]["ids"] = list("abcdef"), list("defabc")
    assert loss_changes(before, after) == pytest.approx(np.roll(after.losses, 3) - before.losses)
    after.meta["probe"]["ids"] = list("defabx")
    with pytest.raises(ValueError, match="different examples"):
        loss_changes(before, after)


def test_resume_continues_the_history_against_the_same_reference(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    args = {"dropout": 0.0, "every_n_train_steps": 2}
    run(whole, ImportanceTracker(("speech",), replicates=10), steps=8, **args)
    run(parted, ImportanceTracker(("speech",), replicates=10), steps=6, **args)
    tracker = ImportanceTracker(("speech",), replicates=10)
    run(parted, tracker, steps=8, ckpt=str(parted / "checkpoints/step=4.ckpt"), **args)  # the end of an epoch
    assert measured_steps(parted, "speech") == [0, 2, 4, 6, 8]
    assert [line["step"] for line in tracker.history if line["estimator"] == "taylor"] == [0, 2, 4, 6, 8]
    first = [json.loads(t) for t in (whole / "importance/summary.jsonl").read_text().splitlines()]
    second = [json.loads(t) for t in (parted / "importance/summary.jsonl").read_text().splitlines()]
    assert [x["step"] for x in first] == [x["step"] for x in second]
    for a, b in zip(first, second, strict=True):
        assert a["shift"]["metrics"]["js"]["value"] == pytest.approx(b["shift"]["metrics"]["js"]["value"], rel=1e-5)


def test_an_interrupted_run_is_not_measured(tmp_path: Path) -> None:
    class Broken(Listener):
        def training_step(self, batch: Rows, batch_idx: int) -> torch.Tensor:
            if self.global_step == 3:
                raise RuntimeError("cable pulled")
            return super().training_step(batch, batch_idx)

    tracker = ImportanceTracker(("speech",), replicates=0)
    saver = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=100, save_on_exception=True)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_steps=6, callbacks=[tracker, saver], logger=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="cable pulled"):
        trainer.fit(Broken(), datamodule=Data())
    assert measured_steps(tmp_path, "speech") == [0]
    assert list(tmp_path.glob("*.ckpt"))


@pytest.mark.parametrize("bad", [{"estimators": ["tailor"]}, {"every_n_steps": -1}, {"top_fraction": 2.0}])
def test_bad_settings_are_refused_at_construction(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"allowed|must"):
        ImportanceTracker(**bad)


def test_snapshots_without_vectors_and_without_a_self_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict] = []

    def watched(model: nn.Module, batches: object, estimators: object, **options: object) -> Snapshot:
        seen.append(options)
        return probe(model, batches, estimators, **options)

    monkeypatch.setattr("textkeep.callbacks.importance.probing.probe", watched)
    tracker = ImportanceTracker(
        estimators=("taylor",), probes=["speech"], at_checkpoints=False, replicates=5, vectors=False, self_test=False
    )
    run(tmp_path, tracker, steps=1)
    assert {options["self_test"] for options in seen} == {False}
    snapshot = Snapshot.load(tmp_path / "importance/speech/step=000001")
    assert not snapshot.rows
    assert snapshot.meta["conservation"] == {}
    assert len(tracker.history) == 2


def test_a_measurement_that_overflows_is_left_out_but_not_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on without it; were it kept, its profile of no numbers would be at no distance from any other."""
    real, broken = importance_tracker.measure_probe, [2]

    def measure(trainer: Trainer, pl_module: LightningModule, name: str, *args: object, **options: object) -> Snapshot:
        if trainer.global_step in broken and name == "speech":
            raise NotFiniteError("importance: probe 'speech': the loss of example 60-0 is nan")
        return real(trainer, pl_module, name, *args, **options)

    monkeypatch.setattr(importance_tracker, "measure_probe", measure)
    with pytest.warns(UserWarning, match="example 60-0 is nan; step 2 has no measurement of this probe"):
        run(tmp_path, ImportanceTracker(estimators=("taylor",), every_n_steps=2, replicates=0), steps=4)
    assert measured_steps(tmp_path, "speech") == [0, 4]
    assert measured_steps(tmp_path, "heldout_text") == [0, 2, 4]
    broken.append(0)
    with pytest.raises(NotFiniteError, match=r"example 60-0 is nan$"):
        run(tmp_path / "again", ImportanceTracker(estimators=("taylor",)), steps=4)

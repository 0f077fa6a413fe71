from __future__ import annotations

import multiprocessing
import signal
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from textkeep.datamodules import Batch, SpeechTextData

from .conftest import EnergyFrontEnd, ManifestMaker


class Recorder(L.LightningModule):
    """Learns nothing and remembers the ids of each training batch."""

    def __init__(self, front_end: EnergyFrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[str], float]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.ids, float(batch.features.sum())))
        return self.weight.sum() * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    data: SpeechTextData, front_end: EnergyFrontEnd, folder: Path, resume: str | None = None, **options: Any
) -> Any:
    module = Recorder(front_end)
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    settings: dict[str, Any] = {"max_epochs": 3} | options
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[saver],
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_continues_with_the_next_batch(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path, workers: int, accumulate: int
) -> None:
    path = make_manifest(9)

    def data() -> SpeechTextData:
        return SpeechTextData(
            train=str(path),
            train_modalities="both",
            max_examples_per_batch=4,
            num_workers=workers,
            speed_perturb=[0.9, 1.1],
        )

    whole = fit(data(), front_end, tmp_path / "whole", accumulate_grad_batches=accumulate)
    per_epoch = len(whole) // 3
    steps = -(-per_epoch // accumulate)
    assert per_epoch > 3
    assert whole[0][1:] != whole[per_epoch][1:]  # shuffled anew
    for step in (1, steps, steps + 1):
        rest = fit(
            data(), front_end, tmp_path / "rest", str(tmp_path / "whole" / f"step={step}.ckpt"),
            accumulate_grad_batches=accumulate,
        )  # fmt: skip
        done = step // steps * per_epoch + step % steps * accumulate
        assert rest == whole[done:], step


@pytest.mark.filterwarnings("ignore")
def test_workers_change_nothing_and_may_change_on_resume(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    path = make_manifest(10)
    alone = fit(SpeechTextData(train=str(path), tokens_per_batch=300), front_end, tmp_path / "a")
    with_workers = SpeechTextData(train=str(path), tokens_per_batch=300, num_workers=2)
    assert fit(with_workers, front_end, tmp_path / "b", str(tmp_path / "a" / "step=2.ckpt")) == alone[2:]


@pytest.mark.filterwarnings("ignore")
def test_limited_epochs_are_shuffled_anew(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    data = SpeechTextData(train=str(make_manifest(14)), tokens_per_batch=300)
    seen = fit(data, front_end, tmp_path / "a", limit_train_batches=2)
    assert [epoch for epoch, *_ in seen] == [0, 0, 1, 1, 2, 2]
    assert len({str(seen[i : i + 2]) for i in (0, 2, 4)}) == 3
    again = SpeechTextData(train=str(make_manifest(14)), tokens_per_batch=300)
    assert fit(again, front_end, tmp_path / "b", limit_train_batches=2, reload_dataloaders_every_n_epochs=1) == seen
    assert fit(data, front_end, tmp_path / "c", str(tmp_path / "a" / "step=3.ckpt"), limit_train_batches=2) == seen[3:]


def corrupt(path: Path, *numbers: int) -> None:
    for number in numbers:
        (path.parent / "clips" / f"questions-{number}.wav").write_bytes(b"RIFF, but no more")


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_clips_are_skipped_and_counted(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, workers: int
) -> None:
    path = make_manifest(12)
    corrupt(path, 3, 7)
    data = SpeechTextData(train=str(path), tokens_per_batch=300, on_bad_example="skip", num_workers=workers)
    data.connect(front_end)
    loader = data.train_dataloader()
    with pytest.warns(UserWarning, match=r"skipped: .*questions\.jsonl:\d+: .*questions-\d\.wav cannot be decoded"):
        ids = [identity for batch in loader for identity in batch.ids]
    assert sorted(ids) == sorted({f"questions-{i}" for i in range(12)} - {"questions-3", "questions-7"})
    list(loader)
    assert data.skipped == {"corrupt clip": 2}  # two clips, in however many epochs


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_clip_stops_the_run_under_raise(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, workers: int
) -> None:
    path = make_manifest(4)
    corrupt(path, 2)
    data = SpeechTextData(train=str(path), num_workers=workers)
    data.connect(front_end)
    with pytest.raises(ValueError, match=r"questions\.jsonl:3: .*questions-2\.wav cannot be decoded .*mp3\)$"):
        list(data.train_dataloader())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_workers_read_on_after_a_signal_to_the_whole_job(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, number: signal.Signals
) -> None:
    data = SpeechTextData(train=str(make_manifest(12)), max_examples_per_batch=1, num_workers=1)
    data.connect(front_end)
    batches = iter(data.train_dataloader())
    next(batches)
    (worker,) = multiprocessing.active_children()
    subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)  # not from the parent
    assert len(list(batches)) == 11


def test_a_worker_obeys_its_parent(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    data = SpeechTextData(train=str(make_manifest(12)), max_examples_per_batch=1, num_workers=1)
    data.connect(front_end)
    batches = iter(data.train_dataloader())
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.terminate()  # as torch and the end of the interpreter do with one that hangs
    worker.join(10)
    assert not worker.is_alive()


def test_an_empty_batch_takes_the_next_readable_example(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd
) -> None:
    path = make_manifest(6)
    corrupt(path, 0, 1, 2, 3, 4)
    data = SpeechTextData(train=str(path), max_examples_per_batch=1, on_bad_example="skip")
    data.connect(front_end)
    with pytest.warns(UserWarning, match="skipped"):
        assert [batch.ids for batch in data.train_dataloader()] == [["questions-5"]] * 6
    corrupt(path, 5)
    with pytest.raises(ValueError, match=r"\(on_bad_example is skip, but no clip of 6 could be read\)$"):
        list(data.train_dataloader())


@pytest.mark.filterwarnings("ignore")
def test_evaluation_leaves_an_empty_batch_out(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = make_manifest(4)
    corrupt(path, 1)
    data = SpeechTextData(val=str(path), max_examples_per_batch=1, on_bad_example="skip")
    data.connect(front_end)
    loaders = data.val_dataloader()
    spoken = [identity for batch in loaders["speech"] for identity in batch.ids]
    assert sorted(spoken) == ["questions-0", "questions-2", "questions-3"]  # nobody is asked twice
    assert sum(len(batch) for batch in loaders["text"]) == 4
    assert data.skipped == {"corrupt clip": 1}

"""A run that died and was continued is the run that did not die: examples, weights and the steps of its log."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import Logger

from textkeep.callbacks import RunCheckpoint, StepCompletion
from textkeep.datamodules import Batch, SpeechTextData
from textkeep.datamodules.sources.bad_examples import BadExampleError
from textkeep.lightning_modules.saving.step_boundary import end_at_last_step

from .conftest import EnergyFrontEnd, ManifestMaker

MAX_STEPS = 9
Logged = list[tuple[int, float]]


class DiedError(Exception):
    """What a learner ends with."""


class Learner(L.LightningModule):
    """One weight that hangs on the order of all batches; it dies in a given place.

    Args:
        front_end: For the data.
        dies: Where.
        at: After how many batches.
    """

    def __init__(self, front_end: EnergyFrontEnd, dies: str = "", at: int = -1) -> None:
        super().__init__()
        self.front_end = front_end
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.dies, self.at = dies, at
        self.seen: list[tuple[list[str], float]] = []
        self.logged: Logged = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self._die("training_step", len(self.seen))
        self.seen.append((batch.ids, float(batch.features.sum())))
        loss = (self.weight * batch.features.double().sum()).cos()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        self._die("validation_step", len(self.seen) + 1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._die("optimizer_step", len(self.seen))
        super().optimizer_step(*args, **kwargs)

    def on_train_batch_end(self, *args: Any) -> None:
        self._die("on_train_batch_end", len(self.seen))
        if self.dies == "time" and len(self.seen) >= self.at:
            self.trainer.should_stop = True  # as Lightning's timer does for max_time

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer.training:
            self._die("reading", len(self.seen))
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        end_at_last_step(checkpoint, self.trainer.accumulate_grad_batches, self.trainer.max_steps != -1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def _die(self, place: str, batches: int) -> None:
        if place == self.dies and batches >= self.at:
            raise DiedError


class Log(Logger):
    """Keeps the logged losses with their steps."""

    def __init__(self, rows: Logged) -> None:
        super().__init__()
        self.rows = rows

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "loss" in metrics:
            self.rows.append((step or 0, metrics["loss"]))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


def run(
    learner: Learner, manifest: Path, folder: Path, resume: Path | None = None, workers: int = 0, **options: Any
) -> Learner:
    """Trains, saves in ``folder`` what a run of the command line saves, and ends where the learner dies."""
    data = SpeechTextData(
        train=str(manifest),
        val=str(manifest),
        train_modalities="both",
        max_examples_per_batch=2,
        num_workers=workers,
        noise_snr_db=(10.0, 20.0),
    )
    trainer = L.Trainer(
        accelerator="cpu",
        logger=Log(learner.logged),
        callbacks=[RunCheckpoint(dirpath=folder), StepCompletion()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **{"max_steps": MAX_STEPS, "max_epochs": -1, "limit_val_batches": 1} | options,
    )
    trainer.fit(learner, datamodule=data, ckpt_path=resume, weights_only=False)
    return learner


def same(whole: Learner, resumed: Learner, step: int) -> None:
    """Holds what was done from a step on against a run that was not interrupted."""
    assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert torch.equal(resumed.weight, whole.weight)
    assert resumed.logged == [(at, loss) for at, loss in whole.logged if at >= step]


PLACES = ["reading", "training_step", "optimizer_step", "on_train_batch_end", "validation_step"]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"limit_train_batches": 3},
    "part": {"limit_train_batches": 0.5},
    "overfit": {"overfit_batches": 3},
    "accumulate": {"accumulate_grad_batches": 2},
    "limit and accumulate": {"limit_train_batches": 3, "accumulate_grad_batches": 2},
    "validation in the epoch": {"limit_train_batches": 5, "val_check_interval": 2},
    "validation in a step": {"val_check_interval": 3, "accumulate_grad_batches": 2, "check_val_every_n_epoch": None},
    "no validation": {"limit_val_batches": 0, "limit_train_batches": 3},
    "epochs": {"max_steps": -1, "max_epochs": 3, "limit_train_batches": 3},
}
QUICK = {(0, 1), (1, 0), (3, 1), (4, 2), (5, 1), (6, 4), (7, 2), (9, 0)}
CASES = [
    pytest.param(name, place, 2 + (i + j) % 4, marks=[] if (i, j) in QUICK else pytest.mark.slow)
    for i, name in enumerate(OPTIONS)
    for j, place in enumerate(PLACES)
    if (i, j) in QUICK or (i + j) % 2
]
TIMED = ["accumulate", *(pytest.param(n, marks=pytest.mark.slow) for n in ("plain", "limit and accumulate", "epochs"))]
LONGER = [pytest.param(name, marks=[] if i in (1, 4, 9) else pytest.mark.slow) for i, name in enumerate(OPTIONS)]


def die_and_go_on(case: tuple[str, str, int], whole: Learner, manifest: Path, folder: Path, workers: int = 0) -> None:
    """Lets a run die, continues it from what it left, and compares."""
    name, place, at = case
    front_end = whole.front_end
    with suppress(DiedError):
        run(Learner(front_end, place, at), manifest, folder, None, workers, **OPTIONS[name])
    saved = max(folder.glob("step*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    if saved is None:
        return  # nothing was learnt
    step = torch.load(saved, weights_only=True)["global_step"]
    same(whole, run(Learner(front_end), manifest, folder, saved, workers, **OPTIONS[name]), step)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "place", "at"), CASES)
def test_a_run_that_died_goes_on_as_if_it_had_not(
    name: str, place: str, at: int, make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    manifest = make_manifest(9)
    whole = run(Learner(front_end), manifest, tmp_path / "whole", **OPTIONS[name])
    die_and_go_on((name, place, at), whole, manifest, tmp_path / "died")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["limit", "overfit", "accumulate"])
def test_workers_that_have_read_ahead_change_nothing(
    name: str, make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    manifest = make_manifest(9)
    whole = run(Learner(front_end), manifest, tmp_path / "whole", **OPTIONS[name])
    die_and_go_on((name, "training_step", 5), whole, manifest, tmp_path / "died", workers=2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LONGER)
def test_a_run_that_ended_can_be_made_longer(
    name: str, make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    options, manifest, folder = OPTIONS[name], make_manifest(9), tmp_path / "part"
    whole = run(Learner(front_end), manifest, tmp_path / "whole", **options)
    end = {"max_epochs": 1} if name == "epochs" else {"max_steps": 4}
    first = run(Learner(front_end), manifest, folder, **options | end)
    (saved,) = folder.glob("step*.ckpt")
    rest = run(Learner(front_end), manifest, folder, saved, **options)
    assert first.seen + rest.seen == whole.seen
    assert first.logged + rest.logged == whole.logged
    assert torch.equal(rest.weight, whole.weight)
    assert rest.trainer.current_epoch == whole.trainer.current_epoch


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TIMED)
def test_a_run_whose_time_was_over_goes_on_with_the_next_logged_step(
    name: str, make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    manifest, options = make_manifest(9), OPTIONS[name]
    whole = run(Learner(front_end), manifest, tmp_path / "whole", **options)
    for batches in range(2, 7):
        folder = tmp_path / str(batches)
        first = run(Learner(front_end, "time", batches), manifest, folder, **options)
        (saved,) = folder.glob("step*.ckpt")
        rest = run(Learner(front_end), manifest, folder, saved, **options)
        trained = len(whole.seen) - len(rest.seen)
        assert first.seen[:trained] + rest.seen == whole.seen
        assert first.logged + rest.logged == whole.logged
        assert torch.equal(rest.weight, whole.weight)


class Damages(Learner):
    """A learner that damages a clip after the first batch; a later batch ends the run.

    Args:
        front_end: For the data.
        clip: The clip.
        cut: Whether it is cut or removed.
    """

    def __init__(self, front_end: EnergyFrontEnd, clip: Path, cut: bool) -> None:
        super().__init__(front_end)
        self.clip, self.cut, self.content = clip, cut, clip.read_bytes()

    def on_train_batch_end(self, *args: Any) -> None:
        if len(self.seen) == 1:
            self.clip.write_bytes(self.content[:20])  # within the header: not a short clip
            if not self.cut:
                self.clip.unlink()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "cut", "workers"),
    [
        ("plain", True, 0),
        ("accumulate", False, 0),
        pytest.param("plain", False, 2, marks=pytest.mark.slow),
        pytest.param("accumulate", True, 2, marks=pytest.mark.slow),
    ],
)
def test_a_batch_that_could_not_be_read_is_trained_on_when_it_can(
    name: str, cut: bool, workers: int, make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    options = OPTIONS[name] | {"max_steps": -1, "max_epochs": 1}
    manifest, folder = make_manifest(9), tmp_path / "damaged"
    whole = run(Learner(front_end), manifest, tmp_path / "whole", **options)
    place = max(number for number, (_, energy) in enumerate(whole.seen) if energy)  # the last batch that reads clips
    assert place > 6, "workers have not read that far ahead when the clip is damaged"
    learner = Damages(front_end, tmp_path / "clips" / f"{whole.seen[place][0][0]}.wav", cut)
    with pytest.raises(BadExampleError):
        run(learner, manifest, folder, None, workers, **options)
    assert learner.seen == whole.seen[:place]
    learner.clip.write_bytes(learner.content)
    (saved,) = folder.glob("step*.ckpt")
    step = torch.load(saved, weights_only=True)["global_step"]
    resumed = run(Learner(front_end), manifest, folder, saved, workers, **options)
    same(whole, resumed, step)
    assert len(resumed.seen) >= len(whole.seen) - place

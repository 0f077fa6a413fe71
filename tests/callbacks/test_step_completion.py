"""What a killed run had no time for after its last checkpoint is done by the one that goes on, as due."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from textkeep.callbacks import RunCheckpoint, StepCompletion
from textkeep.lightning_modules.saving.step_boundary import end_at_last_step

MAX_STEPS = 11
BATCHES = 7

Events = list[tuple[Any, ...]]


class KilledError(BaseException):
    """As good as SIGKILL: nothing is saved after it."""


class Positions(torch.utils.data.DataLoader[torch.Tensor]):
    """Gives batches that are numbers, and goes on where a checkpoint was."""

    def __init__(self, limit: int) -> None:
        super().__init__(torch.zeros(BATCHES), batch_size=1)  # type: ignore[arg-type]
        self.limit = limit
        self.given = 0
        self.epoch = 0
        self.resumed = False

    def __iter__(self) -> Any:
        if self.given and not self.resumed:
            self.epoch, self.given = self.epoch + 1, 0
        self.resumed = False
        for number in range(self.given, BATCHES):
            self.given += 1
            yield torch.tensor([10.0 * self.epoch + number], dtype=torch.float64)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batches": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.given = state["epoch"], state["batches"]
        self.resumed = self.given < self.limit


class Learner(L.LightningModule):
    """One weight that hangs on all batches and on the rate, which follows the validation; it notes what is called.

    Args:
        killed: Tells, from the name of a hook and the steps so far, whether the process is to end there.
        plateau: ``step`` or ``epoch``: when the rate follows the validation.
    """

    def __init__(self, killed: Callable[[str, int], bool] | None = None, plateau: str = "step") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.killed = killed
        self.plateau = plateau
        self.events: Events = []

    def note(self, name: str, *more: Any) -> None:
        self.events.append((name, *more))
        if self.killed is not None and self.killed(name, self.trainer.global_step):
            raise KilledError

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        self.note("train", batch.item(), self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        loss = (self.weight * (1 + batch)).cos().sum()
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.note("batch_end")

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.note("validate", batch.item(), self.training, torch.is_grad_enabled())
        self.log("val", (self.weight * batch).sin().sum())

    def on_validation_end(self) -> None:
        self.note("validated")

    def on_train_epoch_start(self) -> None:
        self.note("epoch_start", self.current_epoch)

    def on_train_epoch_end(self) -> None:
        self.note("epoch_end", self.current_epoch)

    def on_train_end(self) -> None:
        self.note("end")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        end_at_last_step(checkpoint, self.trainer.accumulate_grad_batches, self.trainer.max_steps != -1)

    def configure_optimizers(self) -> Any:
        assert self.trainer.estimated_stepping_batches > 0  # a schedule asks; by epochs, this makes the data loader
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.9, patience=0)
        return [optimizer], [{"scheduler": plateau, "monitor": "val", "interval": self.plateau, "strict": False}]


class Log(Logger):
    """Puts what is logged among the events."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.events.append(("row", step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Restored(L.Callback):
    """Notes when a run is where its checkpoint was."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        pl_module.events.append(("start",))


def run(learner: Learner, folder: Path, resume: Path | None = None, saves_end: bool = False, **options: Any) -> Learner:
    """Trains, saves every two steps and the best by validation, and stops early where that one gets no better."""
    stopping = options.pop("stopping", {"patience": 4, "check_on_train_epoch_end": False})
    trainer = L.Trainer(
        accelerator="cpu",
        logger=Log(learner.events),
        callbacks=[
            EarlyStopping("val", **stopping),
            *([RunCheckpoint(dirpath=folder / "end")] if saves_end else []),
            Restored(),
            StepCompletion(),
            ModelCheckpoint(folder / "steps", "{step}", every_n_train_steps=2, save_top_k=-1),
            ModelCheckpoint(folder / "best", "{step}", monitor="val", save_top_k=2, enable_version_counter=False),
        ],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **{"max_steps": MAX_STEPS, "max_epochs": -1, "limit_val_batches": 2} | options,
    )
    training = Positions(options.get("limit_train_batches", BATCHES))
    validation: Any = torch.utils.data.DataLoader(torch.tensor([1.0, 2.0]).double())
    trainer.fit(learner, training, validation, ckpt_path=resume, weights_only=False)
    return learner


def newest(folder: Path) -> Path:
    return max(folder.glob("steps/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)


def after(events: Events, batches: int) -> Events:
    """What happened after so many training batches."""
    ends = [place for place, event in enumerate(events) if event[0] == "batch_end"]
    return events[ends[batches - 1] + 1 :]


def held_against(whole: Learner, resumed: Learner, saved: Path) -> None:
    """All that happened after the checkpoint happened again, in order, with the same figures."""
    progress = torch.load(saved, weights_only=False)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    start = resumed.events.index(("start",))
    assert resumed.events[start + 1 :] == after(whole.events, progress["total"]["ready"])
    assert torch.equal(resumed.weight, whole.weight)


OPTIONS: dict[str, dict[str, Any]] = {
    "at the end of an epoch": {},
    "in an epoch": {"val_check_interval": 2},
    "a fraction": {"val_check_interval": 0.5},
    "across epochs": {"val_check_interval": 4, "check_val_every_n_epoch": None},
    "accumulation": {"accumulate_grad_batches": 2, "val_check_interval": 3, "max_steps": 9},
    "every second epoch": {"check_val_every_n_epoch": 2, "max_steps": 15},
    "by epochs": {"max_steps": -1, "max_epochs": 2},
    "limited": {"limit_train_batches": 3},
    "early stopping by epochs": {"stopping": {"patience": 0}},
}
PLACES = ["validate", "validated", "epoch_end", "epoch_start", "batch_end", "end"]


CASES = [
    pytest.param(name, place, marks=[] if (i + j) % len(PLACES) == 0 else pytest.mark.slow)
    for i, name in enumerate(OPTIONS)
    for j, place in enumerate(PLACES)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "place"), CASES)
def test_what_was_cut_off_is_done(name: str, place: str, tmp_path: Path) -> None:
    plateau = "epoch" if "epoch" in name else "step"
    whole = run(Learner(plateau=plateau), tmp_path / "whole", **OPTIONS[name])
    for at in (2, 4, 6, 7):
        folder = tmp_path / str(at)
        killed = Learner(lambda hook, step, at=at: hook == place and step >= at, plateau)  # type: ignore[misc]
        try:
            run(killed, folder, **OPTIONS[name])
        except KilledError:
            saved = newest(folder)
            held_against(whole, run(Learner(plateau=plateau), folder, saved, **OPTIONS[name]), saved)
        best = sorted(path.name for path in (folder / "best").glob("*"))
        assert best == sorted(path.name for path in (tmp_path / "whole/best").glob("*"))


def from_the_next_batch_on(events: Events) -> Events:
    """Leaves out what comes before a batch is trained on."""
    return events[[event[0] for event in events].index("train") :]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in OPTIONS if "epochs" not in name or name == "across epochs"])
def test_a_finished_run_that_is_made_longer_validates_no_step_twice(name: str, tmp_path: Path) -> None:
    whole = run(Learner(), tmp_path / "whole", **OPTIONS[name])
    for steps in (2, 3, 4, 7):
        folder = tmp_path / str(steps)
        first = run(Learner(), folder, saves_end=True, **OPTIONS[name] | {"max_steps": steps})
        (saved,) = (folder / "end").glob("step=*.ckpt")
        longer = run(Learner(), folder, saved, **OPTIONS[name])
        trained = sum(event[0] == "train" for event in first.events)
        assert from_the_next_batch_on(longer.events) == from_the_next_batch_on(after(whole.events, trained))
        before = longer.events[: [event[0] for event in longer.events].index("train")]
        assert not [event for event in before if event[0] in ("row", "validate")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("before", "now", "validates"),
    [
        ({"val_check_interval": 2}, {"val_check_interval": 2}, True),
        ({"val_check_interval": 2}, {"val_check_interval": 4}, True),
        ({"val_check_interval": 2}, {"val_check_interval": 3}, False),
        ({"val_check_interval": 3}, {"val_check_interval": 2}, False),
        ({"val_check_interval": 2}, {"limit_val_batches": 0}, False),
        ({"limit_val_batches": 0}, {"val_check_interval": 2}, False),
    ],
)
def test_other_settings_of_validation_hold_from_the_next_step_on(
    before: dict[str, Any], now: dict[str, Any], validates: bool, tmp_path: Path
) -> None:
    with suppress(KilledError):
        run(Learner(lambda hook, step: step == 4 and hook in ("validate", "train")), tmp_path, **before)
    resumed = run(Learner(), tmp_path, newest(tmp_path), **now)
    first = [event[0] for event in resumed.events[resumed.events.index(("start",)) + 1 :]]
    assert ("validate" in first[: first.index("train")]) == validates


@pytest.mark.filterwarnings("ignore")
def test_time_since_the_last_validation_goes_on_counting(tmp_path: Path) -> None:
    def patient(hook: str, step: int) -> bool:
        if hook == "train" and step == 3:
            time.sleep(1.0)  # before the checkpoint: the validation is due when it is written
        return hook == "validate"

    by_time = {"val_check_interval": timedelta(seconds=1), "check_val_every_n_epoch": None}
    with suppress(KilledError):
        run(Learner(patient), tmp_path, **by_time)
    saved = newest(tmp_path)
    assert torch.load(saved, weights_only=False)["global_step"] == 4
    resumed = run(Learner(), tmp_path, saved, **by_time)
    names = [event[0] for event in resumed.events]
    assert names[names.index("start") :][:4] == ["start", "row", "validate", "validate"]
    assert names.count("validated") == 1


def test_a_run_that_begins_with_the_state_of_another_has_none_of_its_rows(tmp_path: Path) -> None:
    whole = run(Learner(), tmp_path / "whole", max_steps=4)
    assert ("row", 3) in [event[:2] for event in whole.events]
    other = run(Learner(), tmp_path / "other", newest(tmp_path / "whole"), max_steps=6)
    assert [event[1] for event in other.events if event[0] == "row"] == [4, 5]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batches", [0, 1])
def test_a_stop_inside_of_a_validation_leaves_no_trace_in_the_counters(batches: int, tmp_path: Path) -> None:
    """Lightning counts the validation batches of an epoch; those of a validation that is done again count once."""

    class Stopped(Learner):
        def on_validation_batch_end(self, *_: Any) -> None:
            self.stop_after(1)

        def on_validation_batch_start(self, *_: Any) -> None:
            self.stop_after(0)

        def stop_after(self, count: int) -> None:
            if (self.trainer.global_step, count) == (4, batches):
                self.trainer.save_checkpoint(tmp_path / "stop.ckpt", weights_only=False)
                raise KilledError

    options: dict[str, Any] = {"val_check_interval": 2, "max_steps": 6}
    run(Learner(), tmp_path / "whole", **options)
    with suppress(KilledError):
        run(Stopped(), tmp_path / "parts", **options)
    run(Learner(), tmp_path / "parts", tmp_path / "stop.ckpt", **options)
    ours, theirs = (torch.load(tmp_path / name / "steps/step=6.ckpt") for name in ("whole", "parts"))
    assert theirs["loops"]["fit_loop"] == ours["loops"]["fit_loop"]

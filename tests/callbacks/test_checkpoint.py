"""Checkpoints of a run: there is always a whole one, and no more of them than an uninterrupted run has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from textkeep.callbacks import RunCheckpoint
from textkeep.callbacks.saving.checkpoint_io import WholeCheckpoints
from textkeep.lightning_modules.saving.step_boundary import end_at_last_step

pytestmark = pytest.mark.filterwarnings("ignore")


class Schedule(LRScheduler):
    """Smaller rates with each step."""

    def get_lr(self) -> list[float]:
        return [0.01 / (self.last_epoch + 1) for _ in self.optimizer.param_groups]


class Learner(LightningModule):
    """Two weights; its validation loss goes up and down, so that the best checkpoints are not the newest."""

    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW
    schedule: type[LRScheduler] = Schedule

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight * batch).pow(2).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/loss", float([5, 3, 4, 1, 2, 6, 0, 7][self.trainer.global_step // 2 % 8]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        end_at_last_step(checkpoint, 1, by_steps=True)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters(), lr=0.01)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}


class Dies(Callback):
    """Ends a run after a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


class Killed(RunCheckpoint):
    """As it is when the process was killed: nothing is saved at the end."""

    def on_exception(self, *args: Any) -> None:
        pass


def fit(
    folder: Path, checkpoint: RunCheckpoint, *more: Callback, resume: Path | str | None = None, **options: Any
) -> Learner:
    data = DataLoader(torch.tensor([[0.1, 0.2]] * 100))  # alike: it begins anew after a resume
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False, num_sanity_val_steps=0,
        enable_model_summary=False, callbacks=[*more, checkpoint],
        **{"max_steps": 16, "max_epochs": -1, "val_check_interval": 2, "limit_val_batches": 1} | options,
    )  # fmt: skip
    learner = Learner()
    trainer.fit(learner, data, DataLoader(torch.ones(1, 2)), ckpt_path=resume, weights_only=True)
    return learner


def names(folder: Path) -> dict[str, int | str]:
    """What lies in the folder: the step that a file holds, or where a link leads to."""
    found: dict[str, int | str] = {}
    for path in sorted((folder / "checkpoints").glob("[!.]*")):
        held = os.readlink(path) if path.is_symlink() else torch.load(path, weights_only=True)["global_step"]
        found[path.name] = held
    return found


SCHEDULES: dict[str, dict[str, Any]] = {
    "newest": {"every_n_train_steps": 3},
    "all": {"every_n_train_steps": 3, "save_top_k": -1},
    "best": {"monitor": "val/loss"},
    "best three": {"monitor": "val/loss", "save_top_k": 3},
    "best of all": {"monitor": "val/loss", "save_top_k": -1},
    "after validation": {},
    "two files": {"every_n_train_steps": 3, "save_last": True},
}


def last(folder: Path) -> Path:
    return (folder / "checkpoints" / "last.ckpt").resolve()


@pytest.mark.parametrize("how", [KeyboardInterrupt, RuntimeError, None])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_was_cut_off_ends_with_the_files_of_one_that_was_not(
    schedule: str, how: type[BaseException] | None, tmp_path: Path
) -> None:
    options = SCHEDULES[schedule]
    whole = fit(tmp_path / "whole", RunCheckpoint(**options))
    saver = RunCheckpoint if how else Killed
    resume = None
    for step in (5, 7, 9, 13):
        with pytest.raises((SystemExit, RuntimeError)):
            fit(tmp_path / "cut", saver(**options), Dies(step, (how or RuntimeError)()), resume=resume)
        resume = last(tmp_path / "cut")
    resumed = fit(tmp_path / "cut", saver(**options), resume=resume)
    assert torch.equal(resumed.weight, whole.weight)
    assert names(tmp_path / "cut") == names(tmp_path / "whole")


@pytest.mark.parametrize("schedule", ["newest", "best three"])
def test_a_run_that_was_moved_knows_its_files(schedule: str, tmp_path: Path) -> None:
    options = SCHEDULES[schedule]
    fit(tmp_path / "whole", RunCheckpoint(**options))
    with pytest.raises(SystemExit):
        fit(tmp_path / "here", RunCheckpoint(**options), Dies(7, KeyboardInterrupt()))
    shutil.move(tmp_path / "here", tmp_path / "there")
    fit(tmp_path / "there", RunCheckpoint(**options), resume=last(tmp_path / "there"))
    assert names(tmp_path / "there") == names(tmp_path / "whole")


@pytest.mark.parametrize("schedule", ["newest", "best three"])
def test_a_process_that_died_between_saving_and_removing_leaves_nothing(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written beside a file's place is cleared away too."""
    options = SCHEDULES[schedule]
    fit(tmp_path / "whole", Killed(**options))

    def dies(self: SingleDeviceStrategy, path: str) -> None:
        if "12" in os.readlink(tmp_path / "cut/checkpoints/last.ckpt"):
            raise RuntimeError("dies")
        remove(self, path)

    remove = SingleDeviceStrategy.remove_checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(SingleDeviceStrategy, "remove_checkpoint", dies)
        with pytest.raises(RuntimeError, match="dies"):
            fit(tmp_path / "cut", Killed(**options))
    (tmp_path / "cut/checkpoints/.step=000015.ckpt.0123456789ab.tmp").write_bytes(b"half")
    assert set(names(tmp_path / "cut")) > {"step=000009.ckpt" if schedule == "newest" else "step=000002.ckpt"}
    fit(tmp_path / "cut", Killed(**options), resume=last(tmp_path / "cut"))
    assert names(tmp_path / "cut") == names(tmp_path / "whole")
    assert not list((tmp_path / "cut/checkpoints").glob(".*"))


def test_files_that_were_removed_by_hand_are_forgotten(tmp_path: Path) -> None:
    options = SCHEDULES["best three"]
    with pytest.raises(SystemExit):
        fit(tmp_path, RunCheckpoint(**options), Dies(9, KeyboardInterrupt()))
    assert list(names(tmp_path)) == ["last.ckpt", *(f"step={s:06d}.ckpt" for s in (2, 6, 8, 9))]
    (tmp_path / "checkpoints" / "step=000006.ckpt").unlink()  # the best one
    saver = RunCheckpoint(**options)
    fit(tmp_path, saver, resume=last(tmp_path))
    assert set(saver.best_k_models) == {str(tmp_path / "checkpoints" / f"step={s:06d}.ckpt") for s in (2, 8, 12)}
    assert saver.best_model_path.endswith("step=000012.ckpt")


def test_what_is_not_its_own_stays(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", RunCheckpoint(every_n_train_steps=3), Dies(7, KeyboardInterrupt()))
    folder = tmp_path / "run" / "checkpoints"
    shutil.copy(folder / "step=000007.ckpt", folder / "mine.ckpt")
    shutil.copy(folder / "step=000007.ckpt", tmp_path / "backup.ckpt")
    fit(tmp_path / "run", RunCheckpoint(every_n_train_steps=3), resume=folder / "mine.ckpt")
    assert list(names(tmp_path / "run")) == ["last.ckpt", "mine.ckpt", "step=000016.ckpt"]
    other = tmp_path / "other" / "checkpoints"  # a run of another folder, with the same names
    other.mkdir(parents=True)
    for step in (6, 7):
        shutil.copy(tmp_path / "backup.ckpt", other / f"step={step:06d}.ckpt")
    fit(tmp_path / "other", RunCheckpoint(every_n_train_steps=3), resume=tmp_path / "backup.ckpt")
    assert {"step=000006.ckpt", "step=000007.ckpt", "step=000016.ckpt"} <= set(names(tmp_path / "other"))


def test_two_callbacks_share_a_folder(tmp_path: Path) -> None:
    best = ModelCheckpoint(
        tmp_path / "checkpoints", "step={step:06d}", "val/loss", auto_insert_metric_name=False,
        enable_version_counter=False,
    )  # fmt: skip
    newest = RunCheckpoint(every_n_train_steps=2)
    fit(tmp_path, newest, best)
    assert list(names(tmp_path)) == ["last.ckpt", "step=000012.ckpt", "step=000016.ckpt"]


def test_all_files_stay_when_fewer_are_asked_for_later(tmp_path: Path) -> None:
    fit(tmp_path, RunCheckpoint(every_n_train_steps=3, save_top_k=-1), max_steps=9)
    fit(tmp_path, RunCheckpoint(every_n_train_steps=3), resume=last(tmp_path), max_steps=12)
    assert list(names(tmp_path)) == ["last.ckpt", *(f"step={s:06d}.ckpt" for s in (3, 6, 12))]


def test_a_file_of_another_schedule_is_replaced(tmp_path: Path) -> None:
    fit(tmp_path, RunCheckpoint(every_n_train_steps=3), max_steps=9)
    fit(tmp_path, RunCheckpoint(every_n_train_steps=4), resume=last(tmp_path), max_steps=12)
    assert list(names(tmp_path)) == ["last.ckpt", "step=000012.ckpt"]


def test_a_step_that_is_saved_is_not_written_again(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, RunCheckpoint(every_n_train_steps=3), Dies(7, KeyboardInterrupt()))
    before = last(tmp_path).stat()

    class AtOnce(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        fit(tmp_path, RunCheckpoint(every_n_train_steps=3), AtOnce(), resume=last(tmp_path))
    after = last(tmp_path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


class InsideOfTheStep(torch.optim.AdamW):
    """Raises when weights have moved."""

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        if int(self.state[self.param_groups[0]["params"][0]]["step"]) == 6:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        return result


class BeforeTheSchedule(Schedule):
    """Raises when Lightning has counted the step, and the schedule has not."""

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch == 5:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        super().step(epoch)


@pytest.mark.parametrize("where", ["optimizer", "schedule"])
def test_a_half_step_is_never_saved(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tmp_path / "whole", RunCheckpoint(every_n_train_steps=4))
    with monkeypatch.context() as patched:
        patched.setattr(Learner, where, InsideOfTheStep if where == "optimizer" else BeforeTheSchedule)
        with pytest.raises(RuntimeError, match="killed by signal"):
            fit(tmp_path / "cut", RunCheckpoint(every_n_train_steps=4))
    assert names(tmp_path / "cut") == {"last.ckpt": "step=000004.ckpt", "step=000004.ckpt": 4}
    resumed = fit(tmp_path / "cut", RunCheckpoint(every_n_train_steps=4), resume=last(tmp_path / "cut"))
    assert torch.equal(resumed.weight, whole.weight)


def test_a_save_that_fails_does_not_hide_why_the_run_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Callback):
        def on_save_checkpoint(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="the first error"), pytest.warns(UserWarning, match="step 5 is not saved"):
        fit(tmp_path, RunCheckpoint(every_n_train_steps=4), Broken(), Dies(5, RuntimeError("the first error")))
    assert names(tmp_path) == {"last.ckpt": "step=000004.ckpt", "step=000004.ckpt": 4}


def test_each_callback_writes_whole_files_in_a_fit(tmp_path: Path) -> None:
    saver = RunCheckpoint()
    fit(tmp_path, saver, max_steps=2)

    class Own(WholeCheckpoints):
        pass

    own = Own()
    trainer = Trainer(accelerator="cpu", plugins=[own], callbacks=[saver], logger=False, barebones=False)
    saver.setup(trainer, Learner(), "fit")
    assert trainer.strategy.checkpoint_io is own

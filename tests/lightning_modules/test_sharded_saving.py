"""Checkpoints in parts: read by any number of ranks to the bit, and there when they are whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, distributed
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.support.measured_runs import MeasuredRun
from textkeep.callbacks.saving.checkpoint_io import WholeCheckpoints
from textkeep.cli.checkpoint_choice import checkpoint_to_load
from textkeep.foundation.errors import RunError, UserError
from textkeep.foundation.shard_files import LISTING, REST, write_listing
from textkeep.foundation.sharded_checkpoint import fill, is_checkpoint, read_sharded, shapes_of
from textkeep.inference.run_settings import data_settings
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules.saving.checkpoints import check_readable, damage, find_checkpoint, read_settings
from textkeep.lightning_modules.sharding import sharded_saving
from textkeep.lightning_modules.sharding.fsdp2 import FSDP2
from textkeep.lightning_modules.sharding.sharded_saving import ShardedSaving
from textkeep.lightning_modules.sharding.stamped_files import StampedFiles

WHOLE = {
    "weights.a": torch.arange(35.0).reshape(7, 5),
    "weights.b": torch.tensor([3.0], dtype=torch.bfloat16),
    "weights.c": torch.arange(24, dtype=torch.float64).reshape(2, 3, 4),
}


@contextmanager
def rank_of(rank: int, size: int) -> Iterator[None]:
    """This process as one of several, which are not there: nothing may be asked of them."""
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def parts(rank: int, size: int, empty: bool = False) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", (size,))
    found = {}
    for name, whole in WHOLE.items():
        chunks = whole.tensor_split([-(-len(whole) // size) * i for i in range(1, size)])
        local = torch.zeros_like(chunks[rank]) if empty else chunks[rank].clone()
        found[name] = DTensor.from_local(local, mesh, [Shard(0)], shape=whole.shape, stride=whole.stride())
    return found


def written_by_two(folder: Path, save: str = "0123") -> Path:
    """A sharded checkpoint of two ranks: ``WHOLE``, and nothing else."""
    for rank in range(2):
        with rank_of(rank, 2):
            writer = checkpoint.HuggingFaceStorageWriter(str(folder / str(rank)), save_distributed=True)
            writer.fs = StampedFiles(save)
            checkpoint.save(parts(rank, 2), storage_writer=writer, no_dist=True)  # type: ignore[arg-type]
        (file,) = (folder / str(rank)).iterdir()
        file.rename(folder / f"shard-{rank}.safetensors")
        (folder / str(rank)).rmdir()
    torch.save({"state_dict": {}, "global_step": 5, "save": save}, folder / REST)
    write_listing(folder, save, {name: tuple(tensor.shape) for name, tensor in WHOLE.items()})
    return folder


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_two_ranks_wrote_is_read_by_any_number(size: int, tmp_path: Path) -> None:
    written_by_two(tmp_path)
    assert {name: (t.shape, t.dtype) for name, t in shapes_of(tmp_path).items()} == {
        name: (t.shape, t.dtype) for name, t in WHOLE.items()
    }
    for rank in range(size):
        with rank_of(rank, size):
            found, expected = parts(rank, size, empty=True), parts(rank, size)
            fill(tmp_path, found)
            for name, part in found.items():
                assert torch.equal(part.to_local(), expected[name].to_local()), name  # type: ignore[attr-defined]


@pytest.fixture
def saving(tmp_path: Path) -> Iterator[ShardedSaving]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    made = ShardedSaving(timedelta(seconds=30))
    yield made
    made.close()
    distributed.destroy_process_group()


def state(value: float) -> dict[str, object]:
    mesh = init_device_mesh("cpu", (1,))
    weight, moment = (distribute_tensor(torch.full((3, 2), value + i), mesh, [Shard(0)]) for i in range(2))
    adam = {"state": {0: {"step": torch.tensor(value), "exp_avg": moment}}, "param_groups": [{"lr": 0.1}]}
    return {
        "state_dict": {"weight": weight, "buffer": torch.ones(2)},
        "optimizer_states": [adam],
        "global_step": 5,
        "pytorch-lightning_version": "2",
    }


def test_a_checkpoint_is_that_of_the_moment_at_which_it_was_saved(saving: ShardedSaving, tmp_path: Path) -> None:
    path, order = tmp_path / "step=000005.ckpt", []
    now = state(1.0)
    saving.write(now, path)
    now["state_dict"]["weight"].to_local().zero_()  # type: ignore[index]  # training goes on
    saving.after(lambda: order.append(("link", path.exists())))
    saving.after(lambda: order.append(("remove", path.exists())))
    saving.wait()
    assert order == [("link", True), ("remove", True)]
    found = read_sharded(path)
    assert torch.equal(found["state_dict"]["weight"], torch.full((3, 2), 1.0))
    assert torch.equal(found["state_dict"]["buffer"], torch.ones(2))
    (adam,) = found["optimizer_states"]
    assert torch.equal(adam["state"][0]["exp_avg"], torch.full((3, 2), 2.0))
    assert adam["state"][0]["step"] == 1
    assert adam["param_groups"] == [{"lr": 0.1}]
    assert found["global_step"] == 5
    assert "optimizer_states" not in read_sharded(path, optimizer=False)
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_could_not_be_written_has_no_name_and_nothing_follows_on_it(
    saving: ShardedSaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path, done = tmp_path / "step=000005.ckpt", []
    monkeypatch.setattr(sharded_saving, "write_listing", full)
    saving.write(state(1.0), path)
    saving.after(lambda: done.append("removed the one before"))
    with pytest.raises(RunError, match=r"step=000005.ckpt cannot be written: No space left on device"):
        saving.wait()
    assert not path.exists()
    assert not done
    monkeypatch.undo()
    saving.write(state(2.0), path)
    saving.wait()
    assert damage(path) is None


SECOND = "shard-1.safetensors"


def unlisted(folder: Path, other: Path) -> None:
    """Whoever removes a shard also from the list leaves tensors of which there is no more than a half."""
    (folder / SECOND).unlink()
    listing = json.loads((folder / LISTING).read_text())
    del listing["shards"][SECOND]
    (folder / LISTING).write_text(json.dumps(listing))


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "shard missing": (lambda folder, other: (folder / SECOND).unlink(), rf"{SECOND} in it is not there, or cut short"),
    "shard cut short": (
        lambda folder, other: os.truncate(folder / SECOND, 100),
        f"{SECOND} in it is not there",
    ),
    "shard of another step": (
        lambda folder, other: shutil.copy(other / SECOND, folder),
        f"{SECOND} in it is damaged, or of another checkpoint",
    ),
    "shard too many": (
        lambda folder, other: shutil.copy(other / SECOND, folder / "shard-2.safetensors"),
        "shard-2.safetensors in it is damaged, or of another checkpoint",
    ),
    "shard of zeros": (
        lambda folder, other: (folder / SECOND).write_bytes(bytes((folder / SECOND).stat().st_size)),
        f"{SECOND} in it is damaged",
    ),
    "shard not listed": (unlisted, r"no shard in it holds all of weights\.a"),
    "rest of another step": (lambda folder, other: shutil.copy(other / REST, folder), f"{REST} in it is not the one"),
    "list of another step": (
        lambda folder, other: shutil.copy(other / LISTING, folder),
        f"{REST} in it is not the one",
    ),
    "no list": (lambda folder, other: (folder / LISTING).unlink(), f"{LISTING} in it is not there"),
    **{
        f"list {text}": (
            partial(lambda text, folder, other: (folder / LISTING).write_bytes(text), text),
            "does not list",
        )
        for text in (b"{}", b"[]", b"null", b'"x"', b"\xff", b"{", b'{"rest.ckpt": 5}')
    },
    "shards are a list": (
        lambda folder, other: (folder / LISTING).write_text('{"save": "", "rest": "", "shards": [], "tensors": {}}'),
        "does not list its files",
    ),
}


@pytest.mark.parametrize("change", DAMAGE)
def test_no_reader_takes_a_checkpoint_that_is_not_as_it_was_written(change: str, tmp_path: Path) -> None:
    path, other = written_by_two(tmp_path / "step=2.ckpt"), written_by_two(tmp_path / "step=4.ckpt", "4567")
    assert is_checkpoint(path)
    assert damage(path) is None
    harm, said = DAMAGE[change]
    harm(path, other)
    strategy = FSDP2()
    strategy.connect(LightningModule())
    readers: list[Callable[[], object]] = [
        lambda: read_sharded(path),
        lambda: WholeCheckpoints().load_checkpoint(path),
        lambda: fill(path, {name: torch.empty_like(whole) for name, whole in WHOLE.items()}),
        lambda: strategy.load_checkpoint(path),
        lambda: check_readable(path),
        lambda: SpeechLLM.from_run(path),
    ]
    for read in readers:
        with pytest.raises(ValueError, match=rf"step=2\.ckpt is damaged \(.*{said}"):
            read()


def test_one_process_is_not_warned_that_it_is_one(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert torch.equal(read_sharded(written_by_two(tmp_path))["state_dict"]["a"], WHOLE["weights.a"])
    assert not [
        warning for warning in recwarn if "torch.distributed" in str(warning.message) and "load" in str(warning.message)
    ]


def test_one_process_reads_it_as_it_reads_a_file(
    saving: ShardedSaving, measured_run: MeasuredRun, tmp_path: Path
) -> None:
    file = find_checkpoint(measured_run("full"))
    whole = torch.load(file, weights_only=True)
    mesh = init_device_mesh("cpu", (1,))

    def divided(value: Tensor) -> Tensor:
        return distribute_tensor(value, mesh, [Shard(0)]) if value.dim() else value

    parts = {key: apply_to_collection(whole[key], Tensor, divided) for key in ("state_dict", "optimizer_states")}
    path = tmp_path / "checkpoints" / "step=000003.ckpt"
    saving.write({**whole, **parts}, path)
    saving.wait()
    found = WholeCheckpoints().load_checkpoint(path, weights_only=True)
    assert found.keys() == whole.keys()
    assert apply_to_collection(found, Tensor, Tensor.tolist) == apply_to_collection(whole, Tensor, Tensor.tolist)
    assert checkpoint_to_load(tmp_path, "last", "test") == checkpoint_to_load(tmp_path, str(path), "fit") == str(path)
    assert read_settings(path) == read_settings(file)
    (tmp_path / "config.yaml").write_text("data: {system: Be brief.}")
    assert data_settings(path) == data_settings(tmp_path) == {"system": "Be brief."}
    ours, theirs = SpeechLLM.from_run(tmp_path).state_dict(), SpeechLLM.from_run(file).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(UserError, match=r"step=000003.ckpt is a folder; allowed: a file, or SpeechLLM.from_run"):
        SpeechLLM.load_from_checkpoint(path)
    WholeCheckpoints().remove_checkpoint(path)
    assert not list((tmp_path / "checkpoints").iterdir())

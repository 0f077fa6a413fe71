"""A damaged checkpoint is named, and the one before it is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from textkeep.lightning_modules.saving.checkpoints import damage, find_checkpoint


def save(run: Path, step: int) -> Path:
    path = run / "checkpoints" / f"step={step:06d}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}, "global_step": step}, path)
    os.utime(path, (1e9 + step, 1e9 + step))
    return path


@pytest.mark.parametrize("part", [0, 1e-3, 0.3, 0.9, 0.999])
def test_wherever_a_file_is_cut_it_is_found_damaged(part: float, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert damage(path) is None
    os.truncate(path, int(part * path.stat().st_size))
    assert "is damaged" in str(damage(path))


def test_a_file_of_zeros_is_damaged(tmp_path: Path) -> None:  # what a power cut leaves of one that was not synced
    path = save(tmp_path, 1)
    path.write_bytes(bytes(path.stat().st_size))
    assert "is damaged" in str(damage(path))


@pytest.mark.parametrize("link", [True, False])
def test_the_one_before_a_damaged_last_is_taken(link: bool, tmp_path: Path) -> None:
    before, last = save(tmp_path, 5), save(tmp_path, 10)
    if link:
        (tmp_path / "checkpoints" / "last.ckpt").symlink_to(last.name)
    assert find_checkpoint(tmp_path).resolve() == last
    last.write_bytes(b"")
    with pytest.warns(UserWarning, match=r"step=000010\.ckpt is damaged \(0 bytes: empty\); the one before is taken"):
        assert find_checkpoint(tmp_path) == before


def test_a_damaged_file_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    before, last = save(tmp_path, 5), save(tmp_path, 10)
    os.truncate(last, 100)
    with pytest.raises(ValueError, match=rf"step=000010\.ckpt is damaged \(100 bytes: .*; beside it: {before}"):
        find_checkpoint(last)
    os.truncate(before, 0)
    with pytest.raises(ValueError, match="there is no other beside it"):
        find_checkpoint(last)
    with pytest.raises(
        ValueError, match=r"step=0000\d\d\.ckpt is damaged .*step=0000\d\d\.ckpt is damaged .* no other"
    ):
        find_checkpoint(tmp_path)

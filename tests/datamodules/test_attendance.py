"""Workers that are stuck in their fork before they run a line of Python: they are ended and started again."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from textkeep.datamodules import SpeechTextData
from textkeep.datamodules.batches import worker_watch
from textkeep.foundation.errors import MachineError

from .conftest import EnergyFrontEnd, ManifestMaker

STUCK = multiprocessing.get_context("fork").Value("i", 0)
"""How many of the next forks get stuck in every process that is forked from this one."""


def _get_stuck() -> None:
    with STUCK.get_lock():
        STUCK.value -= 1
        stuck = STUCK.value >= 0
    while stuck:
        time.sleep(60)


@pytest.fixture
def stuck_forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker_watch, "_BEGIN", (1.0, 2.0, 2.0))
    if not getattr(_get_stuck, "registered", False):
        os.register_at_fork(after_in_child=_get_stuck)  # for good: there is no way back, so a number decides
        _get_stuck.registered = True  # type: ignore[attr-defined]
    STUCK.value = 0
    yield
    STUCK.value = 0


def read(path: Path, front_end: EnergyFrontEnd) -> tuple[list[list[str]], torch.Tensor, list[int]]:
    """Reads two epochs; gives the examples of each batch, what is drawn next, and the workers' numbers at the end."""
    data = SpeechTextData(train=str(path), max_examples_per_batch=1, num_workers=2, worker_timeout=60, seed=1)
    data.connect(front_end)
    torch.manual_seed(3)
    loader = data.train_dataloader()
    found = [list(batch.ids) for _ in range(2) for batch in loader]
    drawn = torch.rand(2)
    loader.close()
    left = [child.pid for child in multiprocessing.active_children() if child.pid]
    return found, drawn, left


@pytest.mark.parametrize("stuck", [1, 2, 3])
def test_workers_that_do_not_begin_are_started_again(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, stuck_forks: None, stuck: int
) -> None:
    path = make_manifest(6)
    wanted, drawn, _ = read(path, front_end)
    STUCK.value = stuck
    with pytest.warns(UserWarning, match="data workers have not begun within 1 s: they are started again"):
        found, then, left = read(path, front_end)
    assert found == wanted
    assert torch.equal(then, drawn)  # an attempt leaves no trace in what is drawn
    assert left == []


def test_workers_that_never_begin_are_one_line(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, stuck_forks: None
) -> None:
    STUCK.value = 100
    with (
        pytest.warns(UserWarning, match="have not begun"),
        pytest.raises(MachineError, match=r"the data workers \(2\) do not begin, 3 times in a row; allowed"),
    ):
        read(make_manifest(3), front_end)
    assert multiprocessing.active_children() == []

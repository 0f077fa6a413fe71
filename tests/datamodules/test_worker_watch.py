"""Workers that are killed, hang, or run out of shared memory or open files: one line, at a batch's boundary."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor
from torch.utils.data import get_worker_info

from textkeep.datamodules import SpeechTextData
from textkeep.datamodules.batches.batch import Batch
from textkeep.foundation.errors import MachineError

from .conftest import EnergyFrontEnd, ManifestMaker


@dataclass
class FaultyFrontEnd(EnergyFrontEnd):
    """Runs into a fault at the clip of a certain length, in a worker only."""

    samples: int = 0

    def extract(self, waveform: Tensor) -> Tensor:
        if len(waveform) == self.samples and get_worker_info() is not None:
            self.fail()
        return super().extract(waveform)

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class NarrowFrontEnd(FaultyFrontEnd):
    """No file of more than a kilobyte can be written in a worker: neither can one in shared memory."""

    def fail(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def connected(front_end: EnergyFrontEnd, path: Path, workers: int = 2, timeout: float | None = 60) -> SpeechTextData:
    data = SpeechTextData(
        train=str(path), max_examples_per_batch=1, num_workers=workers, worker_timeout=timeout, seed=1
    )
    data.connect(front_end)
    return data


def begun(data: SpeechTextData) -> Iterator[Batch]:
    batches = iter(data.train_dataloader())
    next(batches)
    return batches


def test_a_killed_worker_is_told_where_a_batch_is_waited_for(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd
) -> None:
    data = connected(front_end, make_manifest(30))
    batches = begun(data)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGKILL)
    for _ in range(100):  # an optimizer step: nothing may be raised in the middle of it
        time.sleep(0.01)
    with pytest.raises(MachineError) as told:
        list(batches)
    assert "was killed (SIGKILL: usually by the system when it runs out of memory)" in str(told.value)
    assert str(told.value).endswith("allowed: fewer data.num_workers (now 2; 0 reads in the main process), more memory")
    assert not multiprocessing.active_children()


def test_a_worker_that_crashes_names_the_clip(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = make_manifest(8)  # the clip of number 3 has 0.5 + 2 * (21 % 8) / 8 s
    data = connected(FaultyFrontEnd(front_end.tokenizer, samples=int(16000 * 1.75)), path, workers=1)
    with pytest.raises(MachineError, match=r"crashed \(SIGSEGV\) at .*questions\.jsonl:4 \(.*questions-3\.wav\)"):
        list(data.train_dataloader())


def test_a_worker_that_hangs_ends_the_run_in_time(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = make_manifest(8)
    stuck = path.parent / "clips" / "questions-5.wav"
    data = connected(front_end, path, timeout=2)
    loader = data.train_dataloader()
    stuck.unlink()
    os.mkfifo(stuck)  # opening it waits for a writer, as a dead network disk does
    began = time.monotonic()
    with pytest.raises(MachineError) as told:
        list(loader)
    assert time.monotonic() - began < 20
    assert "for 2 s (data.worker_timeout); they are at " in str(told.value)
    assert f"{path}:6 ({stuck})" in str(told.value)
    assert not multiprocessing.active_children()


def test_a_batch_without_room_in_shared_memory_ends_the_run(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd
) -> None:
    narrow = NarrowFrontEnd(front_end.tokenizer, samples=int(16000 * 1.75))
    data = connected(narrow, make_manifest(8), timeout=60)  # an error that is lost makes the whole of it pass
    began = time.monotonic()
    with pytest.raises(
        MachineError, match=r"^/dev/shm \(.* free\) is too small for the batches of the data workers \(2\); "
    ):
        list(data.train_dataloader())
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()


def test_open_files_are_allowed_as_far_as_may_be(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    data = connected(front_end, make_manifest(30), workers=8)
    opened = len(os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, hard))
        assert len(list(data.train_dataloader())) == 30
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class NoFilesFrontEnd(FaultyFrontEnd):
    """From this clip on its worker can open no file."""

    def fail(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def test_a_clip_is_not_bad_because_no_file_can_be_opened(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd
) -> None:
    exhausted = NoFilesFrontEnd(front_end.tokenizer, samples=int(16000 * 1.75))
    data = SpeechTextData(train=str(make_manifest(8)), num_workers=1, on_bad_example="skip", seed=1)
    data.connect(exhausted)
    with pytest.raises(MachineError, match=r"^the data workers \(1\) need more open files than are allowed"):
        list(data.train_dataloader())
    assert data.skipped == {}


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_is_a_time(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"worker_timeout: .*null for no limit"):
        SpeechTextData(worker_timeout=timeout)

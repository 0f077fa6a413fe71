"""One writer a run directory: real processes that hold its lock, die with it, and are somewhere else."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from textkeep.foundation.errors import UserError
from textkeep.foundation.run_names import lock_name
from textkeep.runs.directory import RunDirectory
from textkeep.runs.launch import Launch
from textkeep.runs.run_lock import LEASE_SECONDS, RunLock

LEASE = 1.2
NOBODY = Launch("", "", (0, 0))
JOB = Launch("SLURM job 77", "step 0", (1, 0))
HOLD = """
import sys
from pathlib import Path
from textkeep.runs.launch import Launch
from textkeep.runs.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]), Launch.of(), float(sys.argv[2]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fit.lock"


@contextmanager
def holding(path: Path, lease: float) -> Iterator[subprocess.Popen[str]]:
    """Gives a process that holds the lock as the first attempt of SLURM job 77."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(lease)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with child:
        yield child
        child.kill()


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with holding(path, LEASE) as child:
        yield child


def elsewhere(path: Path) -> None:
    """Makes the lock one of another machine, as that machine would have written it; its file stays the same one."""
    text = path.read_text()
    with path.open("r+") as file:
        file.write(text.replace(socket.gethostname(), "x" * len(socket.gethostname())))


def test_a_second_writer_is_refused_with_process_machine_and_job(path: Path, holder: subprocess.Popen[str]) -> None:
    said = rf"{path.parent} is being written by process {holder.pid} on {socket.gethostname()} \(SLURM job 77\); "
    for launch in (NOBODY, Launch("SLURM job 77", "step 1", (0, 0)), Launch("SLURM job 78", "", (1, 0))):
        with pytest.raises(UserError, match=said):
            RunLock(path, launch, LEASE).acquire()
    assert holder.stdin is not None
    holder.stdin.close()
    holder.wait()
    assert not path.exists()
    lock = RunLock(path, NOBODY, LEASE)
    lock.acquire()
    lock.release()
    lock.release()
    assert not path.exists()


def test_the_lock_of_a_process_that_was_killed_is_taken_at_once(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    lock = RunLock(path, NOBODY, LEASE)
    assert lock.try_acquire()
    assert f"pid={os.getpid()}\n" in path.read_text()
    lock.release()


def test_another_process_with_its_number_is_not_the_holder(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    path.write_text(path.read_text().replace(f"pid={holder.pid}\n", "pid=1\n"))  # one that lives, and began before
    lock = RunLock(path, NOBODY, LEASE)
    assert lock.try_acquire()
    lock.release()


def test_a_machine_that_gives_signs_of_life_keeps_its_lock(path: Path, holder: subprocess.Popen[str]) -> None:
    elsewhere(path)
    host = "x" * len(socket.gethostname())
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"is being written by process {holder.pid} on {host} \(SLURM job 77\)"):
        RunLock(path, NOBODY, LEASE).acquire()
    assert time.monotonic() - started < LEASE


def test_a_machine_that_gives_none_loses_its_lock_after_the_lease(
    path: Path, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    holder.kill()
    holder.wait()
    elsewhere(path)
    lock = RunLock(path, NOBODY, LEASE)
    assert not lock.try_acquire()
    started = time.monotonic()
    lock.acquire()
    assert time.monotonic() - started >= 0.9 * LEASE
    assert "waiting up to 1 s for a sign of life of it" in capsys.readouterr().out
    assert f"pid={os.getpid()}\n" in path.read_text()
    lock.release()


def test_the_next_attempt_of_a_job_does_not_wait_for_the_machine_of_the_one_before(path: Path) -> None:
    with holding(path, 60) as holder:
        holder.kill()
        holder.wait()
    elsewhere(path)
    lock = RunLock(path, JOB, 60)
    started = time.monotonic()
    lock.acquire()
    assert time.monotonic() - started < 5
    lock.release()


def test_a_file_that_says_nothing_blocks_nobody_for_good(path: Path) -> None:
    path.touch()  # killed between making it and writing to it
    lock = RunLock(path, NOBODY, LEASE)
    lock.acquire()
    lock.release()


def test_a_lock_that_was_lost_is_taken_again_unless_somebody_has_it(path: Path) -> None:
    lock = RunLock(path, NOBODY, LEASE)
    lock.acquire()
    lock.check()
    path.unlink()
    _until(lambda: lock._lease.compromise is not None)
    lock.check()
    assert f"pid={os.getpid()}\n" in path.read_text()
    path.unlink()
    other = RunLock(path, JOB, LEASE)
    other.acquire()
    _until(lambda: lock._lease.compromise is not None)
    with pytest.raises(UserError, match=rf"was taken over by process {os.getpid()} on .* \(SLURM job 77\): this proc"):
        lock.check()
    lock.release()
    assert path.exists()
    other.release()


def test_a_directory_with_nothing_but_the_lock_of_the_dead_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run" / "fit.lock"
    path.parent.mkdir()
    with holding(path, LEASE_SECONDS) as holder:
        taken = RunDirectory.claim(path.parent, str)
        assert taken.path == tmp_path / "run-2"  # it lives, and is about to write its config
        taken.release()
        holder.kill()
        holder.wait()
    taken = RunDirectory.claim(path.parent, str)
    assert taken.path == path.parent
    taken.release()


def test_a_test_writes_other_files_than_a_fit_and_a_validation_the_same() -> None:
    names = {verb: lock_name(verb) for verb in ("fit", "validate", "test", "predict")}
    assert names == {"fit": "fit.lock", "validate": "fit.lock", "test": "test.lock", "predict": "predict.lock"}


def test_what_a_killed_process_had_half_written_goes_when_the_directory_is_taken(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", str)
    assert run.lock is not None
    run.lock.release()
    kept = tmp_path / "run" / ".mine.tmp"
    for leftover in (".metrics.csv.0123456789ab.tmp", "checkpoints/.step=000010.ckpt.abcdef012345.tmp"):
        file = tmp_path / "run" / leftover
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
    folder = tmp_path / "run" / "importance" / "facts" / ".step=000010.0123456789ab.tmp"
    folder.mkdir(parents=True)
    (folder / "stats.safetensors").write_text("half")
    kept.write_text("of the user")
    RunDirectory.take(tmp_path / "run").release()
    left = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())
    assert left == [".mine.tmp", "config.yaml"]


def _until(condition: object) -> None:
    limit = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_lock_that_the_disk_has_no_room_for_is_named(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # what write() refuses then knows no name either
    try:
        with pytest.raises(OSError, match="too large") as told:
            RunLock(path, NOBODY, LEASE).acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (told.value.filename, path.exists()) == (str(path), False)

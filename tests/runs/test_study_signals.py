"""What ends a study on one machine, and what becomes of the run that it was at: with real signals and processes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.study_children import CHILD, states, wait_for, waited
from textkeep.foundation.processes import began

pytestmark = pytest.mark.slow
PROGRAM = (  # a shell that starts the tests in its background has SIGINT ignored
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from textkeep.runs.study import jobs; jobs.PROGRAM = (sys.executable, sys.argv[1]);"
    "from textkeep.runs.study import child; child.ENDING_SECONDS = 3;"
    "from textkeep.cli.main import main; sys.exit(main(['study', *sys.argv[2:]]))"
)
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``textkeep study plan.yaml``; what is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, under: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": tmp_path, **options}
        whole = [*under, sys.executable, "-c", PROGRAM, str(CHILD), "plan.yaml", *words]
        started.append(subprocess.Popen(whole, **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
    for state in states(tmp_path / "s").values():
        if state["pid"] and began(state["pid"]) == state["began"]:
            os.kill(state["pid"], signal.SIGKILL)


def child(folder: Path) -> int:
    """Number of the child that waits to be stopped."""
    run = folder / "s/runs/full/seed=0"
    wait_for(lambda: waited(run).exists() and waited(run).read_text())
    wait_for(lambda: states(folder / "s")["full,seed=0"]["pid"])
    assert waited(run).read_text() == str(states(folder / "s")["full,seed=0"]["pid"])
    return int(waited(run).read_text())


def finishes(process: subprocess.Popen[str], folder: Path, attempts: int) -> str:
    """Lets a study that goes on come to its end: every step once, in one directory."""
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    state = states(folder / "s")["full,seed=0"]
    assert (state["status"], state["attempts"], state["pid"]) == ("finished", attempts, 0)
    assert (folder / "s/runs/full/seed=0/starts.txt").read_text().split() == ["1", "2", "3", "4"]
    assert [path.name for path in (folder / "s/runs/full").iterdir()] == ["seed=0"]
    return str(out)


def test_a_killed_study_leaves_a_child_that_the_next_one_ends(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "fit"}}}, untouched=False)
    killed = start()
    number = child(tmp_path)
    killed.kill()
    killed.communicate(timeout=60)
    assert began(number)
    shown = start("--dry-run").communicate(timeout=60)[0]
    assert f"running (process {number})" in " ".join(shown.split())
    out = finishes(start(), tmp_path, attempts=2)
    assert f"full,seed=0: process {number} of an earlier start still runs: it saves a checkpoint and ends" in out
    assert began(number) is None


def test_a_process_that_has_the_number_of_a_child_is_left_alone(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "fit"}}}, untouched=False)
    killed = start()
    number = child(tmp_path)
    killed.kill()
    killed.communicate(timeout=60)
    os.kill(number, signal.SIGKILL)
    wait_for(lambda: began(number) is None)
    with subprocess.Popen(["sleep", "100"]) as other:
        path = tmp_path / "s/state/full,seed=0.json"
        path.write_text(path.read_text().replace(f'"pid": {number}', f'"pid": {other.pid}'))
        process = start()
        out = process.communicate(timeout=120)[0]
        assert other.poll() is None
        other.kill()
    assert process.returncode == 0
    assert "of an earlier start" not in out


def test_a_closed_terminal_lets_the_run_save(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "fit"}}}, untouched=False)
    here, there = pty.openpty()
    program = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    lost = start(under=(sys.executable, "-c", program), stdin=there, stdout=there, stderr=there)
    os.close(there)
    number = child(tmp_path)
    os.close(here)
    assert lost.wait(timeout=60) == 130
    assert began(number) is None
    assert states(tmp_path / "s")["full,seed=0"]["status"] == "interrupted"
    assert (tmp_path / "s/runs/full/seed=0/checkpoints/step=000002.ckpt").is_file()
    finishes(start(), tmp_path, attempts=2)


def test_under_nohup_a_closed_terminal_is_nothing(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "fit"}}}, untouched=False)
    process = start(under=("nohup",))
    number = child(tmp_path)
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    assert began(number)
    process.send_signal(signal.SIGTERM)
    assert "continues from here" in process.communicate(timeout=60)[0]
    assert process.returncode == 130
    finishes(start(), tmp_path, attempts=2)


def test_a_study_that_is_stopped_in_the_test_does_not_train_again(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "test"}}}, untouched=False)
    process = start()
    child(tmp_path)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    state = states(tmp_path / "s")["full,seed=0"]
    assert (process.returncode, state["status"], state["fitted"], state["tested"]) == (130, "interrupted", True, False)
    finishes(start(), tmp_path, attempts=2)
    assert states(tmp_path / "s")["full,seed=0"]["tested"]


def test_the_third_ctrl_c_kills_a_child_that_hangs(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "for ever"}}, "later": None}, untouched=False)
    process = start()
    number = child(tmp_path)
    for _ in range(3):
        assert process.poll() is None
        assert began(number)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert began(number) is None
    assert set(states(tmp_path / "s")) == {"full,seed=0"}


def test_a_child_of_a_killed_study_that_hangs_is_killed_in_the_end(plan: Any, tmp_path: Path, start: Start) -> None:
    plan(arms={"full": {"set": {"waits": "for ever"}}}, untouched=False)
    killed = start()
    number = child(tmp_path)
    killed.kill()
    killed.communicate(timeout=60)
    process = start()
    assert process.wait(timeout=60) == 0
    assert began(number) is None
    assert states(tmp_path / "s")["full,seed=0"]["attempts"] == 2

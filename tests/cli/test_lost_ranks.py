"""Two real ranks, one of which is lost or fails: one line on one of them, and both end within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from torch.distributed import TCPStore

from tests.support.processes import child_environment, command
from textkeep.cli import lost_ranks
from textkeep.cli.lost_ranks import RankEnds

ROOT = Path(__file__).parents[2]
LOST = "was lost"

Settings = dict[str, Any]


class TwoRanks:
    """What two ranks wrote to standard error, and how the first ended."""

    def __init__(self, tmp_path: Path, settings: Settings, ranks: Sequence[int], how: str, **trainer: Any) -> None:
        fails = {"class_path": "faulty_ranks.FailAtStep", "init_args": {"ranks": list(ranks), "how": how}}
        own = {"default_root_dir": str(tmp_path / "run"), "devices": 2, "max_steps": 50, "logger": False}
        own |= {"strategy": "ddp", "callbacks": [fails], "check_val_every_n_epoch": None, "val_check_interval": 1000}
        config = tmp_path / "two.yaml"
        config.write_text(yaml.safe_dump({**settings, "trainer": {**settings["trainer"], **own, **trainer}}))
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
        process = subprocess.Popen(
            command("fit", "--config", config),
            cwd=tmp_path,
            env=child_environment(HOME=str(tmp_path), PYTHONPATH=path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            began = time.monotonic()
            _, self.errors = process.communicate(timeout=120)
            self.seconds = time.monotonic() - began
            self.code = process.returncode
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        self.told = [line for line in self.errors.splitlines() if line.startswith("textkeep: error: ")]
        self.file = (tmp_path / "run/error.txt").read_text() if (tmp_path / "run/error.txt").is_file() else ""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_loss_of_a_rank_is_one_line(tmp_path: Path, tiny_settings: Settings, rank: int) -> None:
    run = TwoRanks(tmp_path, tiny_settings, [rank], "kill")
    assert len(run.told) == 1, run.errors
    (told,) = run.told
    assert told.startswith(f"textkeep: error: rank {rank} of 2 was lost")
    assert ("was ended by SIGKILL: usually by the system when it runs out of memory" in told) == (rank == 1)
    assert told.endswith("--ckpt_path last continues from the last checkpoint")
    assert run.code == (-signal.SIGKILL if rank == 0 else 1)
    assert "Traceback" not in run.errors
    assert LOST in run.file


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]], ids=str)
def test_what_a_rank_refuses_is_said_once(tmp_path: Path, tiny_settings: Settings, ranks: list[int]) -> None:
    run = TwoRanks(tmp_path, tiny_settings, ranks, "refuse")
    assert run.told == ["textkeep: error: clip 7 is damaged"]
    assert run.code == 2
    assert "Traceback" not in run.errors
    assert "UserError: clip 7 is damaged" in run.file
    assert "gloo" not in run.file


@pytest.mark.slow
def test_a_defect_of_both_ranks_is_one_traceback(tmp_path: Path, tiny_settings: Settings) -> None:
    run = TwoRanks(tmp_path, tiny_settings, [0, 1], "defect")
    assert run.code == 1
    assert run.errors.count("TypeError: a defect") == 1
    assert "gloo/transport" not in run.errors


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(tmp_path: Path, tiny_settings: Settings) -> None:
    run = TwoRanks(tmp_path, tiny_settings, [1], "late")
    (told,) = run.told
    assert told.startswith(
        "textkeep: error: rank 1 of 2 did not answer in time: it hangs, or is busy with something that takes"
    )
    assert run.code == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ValueError("why")])
def test_a_rank_that_ends_is_not_killed_by_what_watches_the_others(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C Lightning kills the other ranks; rank zero may need seconds more, to end W&B for example."""
    killed: list[bool] = []
    monkeypatch.setattr(_ChildProcessObserver, "_terminate_all", lambda observer: killed.append(True))
    with subprocess.Popen(["sleep", "60"]) as child:
        observer = _ChildProcessObserver(os.getpid(), [child], sleep_period=0.05)  # type: ignore[arg-type]
        observer.start()
        ends = RankEnds.__new__(RankEnds)
        ends._rank, ends._size = 0, 2
        ends.report(error)
        child.kill()
    observer.join(5)
    assert not observer.is_alive()
    assert not killed


SERVER = """
import sys, time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(60)
"""


def test_a_store_that_goes_while_it_is_asked_is_a_lost_rank_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process closes its connections one after the other; the store's may be the last."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        store = TCPStore("127.0.0.1", int(server.stdout.readline()), is_master=False)
        server.kill()
    monkeypatch.setattr(lost_ranks, "_living_store", lambda: store)
    ends = RankEnds.__new__(RankEnds)
    ends._rank, ends._size, ends._first_of_node, ends._children = 1, 2, False, []
    ends._error_file, ends._began = tmp_path / "error.txt", 0.0
    lost = RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    ends.report(lost)
    assert str(ends.judge(lost)).startswith("rank 0 of 2 was lost")
    assert str(ends.judge(ValueError("why"))) == "why"

"""torchrun on two nodes, by the command of docs/cluster.md: ranks are started again on both, and the run goes on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.cluster_runs import BIN, TinyRun
from tests.support.house import ROOT
from tests.support.processes import child_environment
from tests.support.slurm_cluster import Cluster, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
(FOUND,) = re.findall(r"^    (torchrun --nnodes(?:.*\\\n)*.*)", PAGE, re.MULTILINE)
COMMAND = shlex.split(FOUND.replace("\\\n", " "))
MARK = "TEXTKEEP_TEST_TORCHRUN"


class Agents:
    """The document's command on both nodes, for a tiny run with one rank on each."""

    def __init__(self, cluster: Cluster, run: TinyRun) -> None:
        self.cluster, self.log, self.run = cluster, run.folder / "torchrun.log", run
        other = {
            "8": "1",
            "my.yaml": str(run.config),
            "configs/trainer/slurm.yaml": str(ROOT / "configs/trainer/slurm.yaml"),
        }
        words = [other.get(word, word) for word in COMMAND]
        words += [
            "--data.num_workers=0",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            "--trainer.precision=32-true",
        ]
        words += ["--trainer.strategy=ddp", "--trainer.default_root_dir", str(run.folder / "runs/elastic")]
        variables = {"PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        variables |= {"WANDB_MODE": "offline", MARK: "yes", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with self.log.open("wb") as log:
            self.processes = [
                subprocess.Popen(
                    cluster.command(node, *words),
                    cwd=run.folder,
                    env=child_environment(**variables),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for node in ("node1", "node2")
            ]

    def says(self, words: str, times: int = 1) -> None:
        def said() -> bool:
            return self.log.read_text(errors="replace").count(words) >= times or self.ended()

        until(said, 400, lambda: f"{words!r} in the log:\n{self.log.read_text(errors='replace')[-4000:]}")
        assert self.log.read_text(errors="replace").count(words) >= times, self.log.read_text(errors="replace")[-4000:]

    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def kill_rank(self, rank: int) -> None:
        (pid,) = [
            pid
            for pid, environment in self.cluster.processes().items()
            if environment.get("RANK") == str(rank) and environment.get(MARK) and _is_rank(pid)
        ]
        os.kill(pid, signal.SIGKILL)


def _is_rank(pid: int) -> bool:
    """Whether the process is the rank itself, a child of the agent."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return b"RANK=" not in Path(f"/proc/{parent}/environ").read_bytes().replace(b"GROUP_RANK=", b"").replace(
        b"NODE_", b""
    )


@pytest.fixture
def agents(slurm: Cluster, two_ranks: TinyRun) -> Iterator[Agents]:
    started = Agents(slurm, two_ranks)
    yield started
    for pid, environment in slurm.processes().items():
        if environment.get(MARK):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for process in started.processes:
        process.wait()


def test_ranks_of_two_nodes_are_started_again_and_go_on_exactly(agents: Agents) -> None:
    for place, rank in (("MARK train 2", 1), ("MARK train 8", 0)):  # before the first checkpoint and after it
        agents.says(place)
        agents.kill_rank(rank)
    until(agents.ended, 400, lambda: agents.log.read_text(errors="replace")[-4000:])
    log = agents.log.read_text(errors="replace")
    assert [process.returncode for process in agents.processes] == [0, 0], log[-4000:]
    assert "the run starts over there" in log
    assert "continuing " in log
    assert agents.run.differences("elastic") == []

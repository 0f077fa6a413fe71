"""torchrun starts the ranks, and starts them again after one has died; docs/cluster.md shows its command."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed import TCPStore

from benchmarks.soak.comparison import compare_runs
from tests.support.cluster_runs import BIN, TinyRun
from tests.support.house import ROOT
from tests.support.processes import child_environment
from textkeep.cli.elastic_store import leave_agents_store

PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
FOUND = re.findall(r"^    (torchrun(?:.*\\\n)*.*)", PAGE, re.MULTILINE)
COMMANDS = [shlex.split(command.replace("\\\n", " ")) for command in FOUND]
(STANDALONE,) = [words for words in COMMANDS if "--standalone" in words]


def torchrun(folder: Path, *more: object, restarts: str = "2") -> subprocess.Popen[bytes]:
    """Starts the document's command with another config, its output in ``torchrun.log``."""
    words = [word.replace("my.yaml", str(folder / "soak.yaml")) for word in STANDALONE]
    words[words.index("--max-restarts") + 1] = restarts
    environment = child_environment(PYTHONPATH=str(ROOT), PATH=f"{BIN}:{os.environ['PATH']}", PYTHONUNBUFFERED="1")
    with (folder / "torchrun.log").open("ab") as log:
        return subprocess.Popen(
            [*words, *map(str, more)], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def ranks(agent: int) -> list[int]:
    """The agent's children, by rank."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    found = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found.update({int(item.partition(b"=")[2]): int(child) for item in environment if item.startswith(b"RANK=")})
    return [found[rank] for rank in sorted(found)]


def says(folder: Path, words: str, times: int = 1, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    log = folder / "torchrun.log"
    while not log.exists() or log.read_text(errors="replace").count(words) < times:
        assert time.monotonic() < end, log.read_text(errors="replace")[-4000:]
        time.sleep(0.05)


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    return TinyRun.write(tmp_path, steps=12, processes=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_that_are_killed_are_started_again_and_go_on_exactly(run: TinyRun) -> None:
    run.leave_alone()
    agent = torchrun(run.folder, "--trainer.default_root_dir", "runs/elastic")
    try:
        for place, rank in (("MARK train 2", 1), ("MARK train 7", 0)):  # before the first checkpoint and after it
            says(run.folder, place)
            os.kill(ranks(agent.pid)[rank], signal.SIGKILL)
        assert agent.wait(400) == 0, (run.folder / "torchrun.log").read_text()[-4000:]
    finally:
        agent.kill()
    log = (run.folder / "torchrun.log").read_text()
    assert "the run starts over there" in log
    assert "continuing runs/elastic from runs/elastic/checkpoints/step=000005.ckpt" in log
    assert compare_runs(run.whole, run.folder / "runs/elastic").differences == {}
    assert not (run.folder / "runs/elastic-2").exists()


MEETS = """import os, time
from torch import distributed
from textkeep.cli.elastic_store import leave_agents_store

rank, attempt = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
if attempt != "0" and rank == "0":
    time.sleep(3)  # the other one is there first
leave_agents_store()
distributed.init_process_group("gloo")
distributed.barrier()
open(f"rank {rank} met the other in attempt {attempt}", "x").close()
if attempt != "2":
    os._exit(1)
distributed.destroy_process_group()
"""


def test_ranks_that_are_started_again_agree_on_a_store_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = str(agents.port)
    ports = {}
    for attempt, rank in (("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        for name, value in {**environment, "TORCHELASTIC_RESTART_COUNT": attempt, "RANK": rank}.items():
            monkeypatch.setenv(name, value)
        leave_agents_store()
        ports[attempt, rank] = os.environ["MASTER_PORT"]
        assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == str(attempt == "0")
        socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"])), timeout=5).close()  # held
    assert ports["0", "0"] == ports["0", "1"] == port
    assert ports["1", "0"] == ports["1", "1"] != port
    assert ports["2", "0"] == ports["2", "1"] not in (port, ports["1", "0"])


@pytest.mark.slow
def test_ranks_that_are_started_again_do_not_meet_those_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "meets.py").write_text(MEETS)
    words = [*STANDALONE[: STANDALONE.index("-m")], "meets.py"]
    environment = child_environment(PYTHONPATH=str(ROOT), PATH=f"{BIN}:{os.environ['PATH']}")
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    met = sorted(path.name for path in tmp_path.glob("rank *"))
    assert met == [f"rank {rank} met the other in attempt {attempt}" for rank in (0, 1) for attempt in (0, 1, 2)]


@pytest.mark.slow
def test_a_launch_that_does_not_fit_is_one_line_of_ours(run: TinyRun) -> None:
    agent = torchrun(run.folder, "--trainer.devices", "1", restarts="0")
    assert agent.wait(200) != 0
    said = [line for line in (run.folder / "torchrun.log").read_text().splitlines() if "textkeep: error" in line]
    assert len(set(said)) == 1
    assert "torchrun starts 2 processes per node, 2 in all; trainer.devices is 1" in said[0]
    assert not (run.folder / "runs").exists()


def test_every_command_of_the_document_is_one_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import get_args_parser

    manifest = yaml.safe_load(next(iter(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    for program, *words in [*COMMANDS, [*container["command"], *container["args"]]]:
        found = get_args_parser().parse_args(words)
        assert (program, found.module, found.training_script) == ("torchrun", True, "textkeep.cli.main")
        assert found.training_script_args[:2] == ["fit", "--config"]
        assert int(found.max_restarts) > 0
    assert len(COMMANDS) == 2

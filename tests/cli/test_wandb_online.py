"""Runs that are logged in to W&B: the real client against a server on loopback that misbehaves as servers do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import Textkeep, child_environment, command
from tests.support.wandb_server import KEY, StoredRun, WandbServer

pytestmark = pytest.mark.slow

QUICK = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1"}  # 15 s by default
PROGRAM = """
import sys
from textkeep.callbacks import ResilientWandbLogger
logger = ResilientWandbLogger(sys.argv[1], init_timeout=20, finish_timeout=40)
for step in range(5):
    logger.log_metrics({"train/loss": 1.0 / (step + 1), "lr-AdamW/llm.07": 0.1}, step=step)
logger.log_heat_map_table("importance_media/speech/shares", [(0, 1, "taylor", 2.5)], "Shares", 4)
import wandb
wandb.finish()
"""


@pytest.fixture
def long_run(tiny_settings: dict[str, Any], tiny_manifest: Path, tmp_path: Path) -> Path:
    """A config that would train for hours, measured and saved every 20 steps."""
    probe = {"source": str(tiny_manifest), "modality": "text", "examples": 4}
    saver = {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 20}}
    tracker = {"class_path": "ImportanceTracker", "init_args": {"replicates": 10}}
    trainer = {
        **tiny_settings["trainer"],
        "default_root_dir": str(tmp_path / "runs/long"),
        "max_steps": 100_000,
        "limit_val_batches": 0,
        "callbacks": [saver, tracker],
        "logger": [
            {"class_path": "RunCSVLogger"},
            {"class_path": "ResilientWandbLogger", "init_args": {"finish_timeout": 5}},
        ],
    }
    path = tmp_path / "long.yaml"
    data = {**tiny_settings["data"], "probes": {"heldout_text": probe}}
    path.write_text(yaml.safe_dump({**tiny_settings, "trainer": trainer, "data": data}))
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``textkeep`` in the background; what still runs at the end of the test is killed."""
    children = []

    def begin(*words: object, **environment: str) -> subprocess.Popen[str]:
        log = (tmp_path / f"child-{len(children)}.log").open("w")
        environment = child_environment(HOME=str(tmp_path), **QUICK, **environment)
        child = subprocess.Popen(
            command(*words), cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        children.append(child)
        return child

    yield begin
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()


def until(what: Callable[[], Any], child: subprocess.Popen[str], seconds: float = 120) -> Any:
    """Waits until something is true while the child runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert child.poll() is None, f"ended with {child.returncode}"
        if found := what():
            return found
        time.sleep(0.3)
    raise AssertionError("it did not come true in time")


def losses(server: WandbServer) -> list[int]:
    """Steps of which the server has the training loss."""
    return [row["trainer/global_step"] for run in server.runs.values() for row in run.history if "train/loss" in row]


def saved_step(run: Path) -> int:
    """Step of the newest checkpoint."""
    return max(int(path.stem.removeprefix("step=")) for path in (run / "checkpoints").glob("step=*.ckpt"))


def no_key(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_rows_arrive_while_it_trains_and_a_killed_job_goes_on_in_the_same_run(
    long_run: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    run = tmp_path / "runs/long"
    with WandbServer() as server:
        job = {"SLURM_JOB_ID": "77", **server.environment}
        child = start("fit", "--config", long_run, **job)
        seen = until(lambda: losses(server), child)
        more = until(lambda: len(losses(server)) > len(seen) + 20 and losses(server), child)
        until(lambda: any("importance_media" in k for row in stored(server).history for k in row), child)
        assert stored(server).exitcode is None
        until((run / "checkpoints/last.ckpt").exists, child)
        # Stopped first, so that the rows before its checkpoint are with the server: kill -9 loses those on their way.
        child.send_signal(signal.SIGSTOP)
        until(lambda: max(losses(server)) >= saved_step(run) - 1, child)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(more) > len(seen) > 0

        # SLURM starts it again with the same words; then somebody presses "Stop run" in the app.
        again = start("fit", "--config", long_run, **{**job, "SLURM_RESTART_COUNT": "1"})
        before = len(losses(server))
        until(lambda: len(losses(server)) > before + 10, again)
        stored(server).stopped = True
        assert again.wait(timeout=90) == 130
        one = stored(server)
    assert server.unknown == []
    steps = losses(server)
    saved = saved_step(run)
    assert saved > max(more)
    assert abs(saved - max(steps)) <= 2
    assert set(range(steps[0], max(steps))) <= set(steps)  # nothing is missing; steps after a checkpoint come twice
    assert [row["_step"] for row in one.history] == list(range(len(one.history)))
    keys = {key for row in one.history for key in row if not key.startswith("_")}
    layers = {f"importance/heldout_text/{e}/layer_0{i}" for e in ("taylor", "fisher", "signed_taylor") for i in (0, 1)}
    assert layers | {"importance/heldout_text/taylor/js_null", "importance_media/heldout_text/heat_map"} <= keys
    assert {one.axes[key] for key in layers} == {"trainer/global_step"}
    assert [name for name in one.axes if "*" in name] == ["*"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["long"]
    assert one.config["cli"]["value"]["trainer"]["max_steps"] == 100_000
    assert "cli_config.yaml" in one.files
    assert no_key(tmp_path)
    assert KEY.encode() not in b"".join(one.files.values())


def stored(server: WandbServer) -> StoredRun:
    (run,) = server.runs.values()
    return run


def test_a_server_that_is_lost_midway_stops_nothing_and_sync_brings_the_rest(
    long_run: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with WandbServer() as server:
        child = start("fit", "--config", long_run, "--trainer.max_steps", "150", **server.environment)
        until(lambda: losses(server), child)
        server.lost = True
        arrived = len(losses(server))
        assert child.wait(timeout=200) == 0
        assert len(losses(server)) == arrived < 150
        server.lost = False
        (folder,) = (tmp_path / "runs/long/wandb").glob("run-*")
        synced = wandb_command("sync", "--include-online", str(folder), cwd=tmp_path, **server.environment)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert sorted(set(losses(server))) == list(range(150))
    assert no_key(tmp_path)


def wandb_command(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), *words],
        cwd=cwd,
        env=child_environment(HOME=str(cwd), **environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def program(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Logs five steps and a table in a child process."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env=child_environment(HOME=str(folder.parent), **QUICK, **environment),
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_server_that_stumbles_still_gets_everything(tmp_path: Path) -> None:
    answers = {("UpsertBucket", 1): 503, ("file_stream", 1): 500, ("file_stream", 2): 429, ("CreateArtifact", 1): 503}
    with WandbServer(fail=lambda request, count: answers.get((request, count))) as server:
        done = program(tmp_path / "run", **server.environment)
        assert done.returncode == 0, done.stderr
        assert "W&B is offline" not in done.stderr
        assert losses(server) == list(range(5))
        assert all(server.calls[request] > count for request, count in answers)
        assert stored(server).axes["lr-AdamW/llm\\.07"] == "trainer/global_step"
        assert "run_table" in server.names().values()
        chart = stored(server).config["_wandb"]["value"]["visualize"]["importance_media/speech/shares"]
        assert chart["panel_config"]["panelDefId"] == "tester/textkeep_heat_map"
        assert server.unknown == []


def test_an_offline_run_is_synced_whole(tmp_path: Path) -> None:
    done = program(tmp_path / "run", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "run/wandb").glob("offline-run-*")
    with WandbServer() as server:
        synced = wandb_command("sync", str(folder), cwd=tmp_path, **server.environment)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert losses(server) == list(range(5))
        assert stored(server).display == "run"
        assert stored(server).name == json.loads((tmp_path / "run/wandb_run.json").read_text())["id"]
        assert server.unknown == []


def test_two_ranks_are_one_run(tiny_config: Path, textkeep: Textkeep) -> None:
    with WandbServer() as server:
        words = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "2"]
        done = textkeep("fit", "--config", tiny_config, *words, **server.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert losses(server) == [0, 1]
        assert stored(server).exitcode == 0
    assert server.unknown == []
    assert len(list((tiny_config.parent / "runs/t/wandb").glob("run-*"))) == 1


def test_the_death_of_wandbs_own_process_turns_it_offline(tmp_path: Path) -> None:
    kill = """
import os, signal, subprocess, time
for line in subprocess.run(["pgrep", "-P", str(os.getpid()), "-a"], capture_output=True, text=True).stdout.splitlines():
    if "wandb-core" in line:
        os.kill(int(line.split()[0]), signal.SIGKILL)
time.sleep(0.5)
logger.log_metrics({"train/loss": 0.01}, step=5)
"""
    text = PROGRAM.replace("import wandb\n", kill + "import wandb\n")
    with WandbServer() as server:
        environment = child_environment(HOME=str(tmp_path), **server.environment)
        words = [sys.executable, "-c", text, str(tmp_path / "run")]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "W&B is offline (its process was lost" in done.stderr
        (online,) = (tmp_path / "run/wandb").glob("run-*")
        (offline,) = (tmp_path / "run/wandb").glob("offline-run-*")
        assert online.name.rsplit("-")[-1] == offline.name.rsplit("-")[-1]  # the same id
        assert os.environ.get("WANDB_API_KEY") is None

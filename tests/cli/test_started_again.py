"""Real fits that are killed and started again, as SLURM, torchrun or a user does."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.killing import KILL_AT
from tests.support.ports import free_port
from tests.support.processes import Textkeep, child_environment, command
from textkeep.foundation.run_names import newest_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
JOB = {"SLURM_JOB_ID": "77", "PYTHONPATH": str(ROOT)}
AGAIN = {**JOB, "SLURM_RESTART_COUNT": "1"}


@pytest.fixture
def killed_config(tiny_config: Path) -> Path:
    """A run of six steps with a checkpoint at each second one, which dies where the environment says."""
    settings = yaml.safe_load(tiny_config.read_text())
    settings["trainer"]["max_steps"] = 6
    settings["trainer"]["callbacks"] = [
        {"class_path": "tests.support.killing.KillAt"},
        {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 2}},
    ]
    settings["data"]["tokens_per_batch"] = 100
    tiny_config.write_text(yaml.safe_dump(settings))
    return tiny_config


def losses(run: Path) -> list[tuple[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def wandb_id(run: Path) -> str:
    return str(json.loads((run / "wandb_run.json").read_text())["id"])


def test_a_job_killed_before_its_first_checkpoint_begins_again_in_its_directory(
    killed_config: Path, textkeep: Textkeep
) -> None:
    run = killed_config.parent / "runs" / "t"
    words = ["fit", "--config", killed_config]
    assert textkeep(*words, **JOB, **{KILL_AT: "1"}).returncode == -9
    assert (run / "fit.lock").is_file()
    identity = wandb_id(run)
    begun = textkeep(*words, **AGAIN, **{KILL_AT: "3"})
    assert begun.returncode == -9
    assert f"there is no checkpoint in {run / 'checkpoints'}: the run starts over there" in begun.stdout
    (run / "error.txt").write_text("of an attempt that failed")
    done = textkeep(*words, **{**AGAIN, "SLURM_RESTART_COUNT": "2"})
    assert done.returncode == 0, done.stderr
    assert f"continuing {run} from {run / 'checkpoints' / 'step=000002.ckpt'}" in done.stdout
    assert [path.name for path in run.parent.iterdir()] == ["t"]
    assert [step for step, _ in losses(run)] == [str(step) for step in range(6)]
    assert wandb_id(run) == identity
    left = {"config.yaml", "checkpoints", "metrics.csv", "wandb", "wandb_run.json", "finished.json"}
    assert {path.name for path in run.iterdir()} == left
    nothing = textkeep(*words, **{**AGAIN, "SLURM_RESTART_COUNT": "3"})
    assert nothing.returncode == 0
    assert nothing.stdout.endswith(f"{run} is finished (step 6): nothing to do\n")


def test_a_job_requeued_in_its_second_fit_goes_on_with_that_one(killed_config: Path, textkeep: Textkeep) -> None:
    first, second = killed_config.parent / "runs" / "t", killed_config.parent / "runs" / "t-2"

    def job(seed: int, **environment: str) -> subprocess.CompletedProcess[str]:
        return textkeep("fit", "--config", killed_config, "--seed_everything", seed, **environment)

    assert job(0, **JOB).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert job(1, **JOB, **{KILL_AT: "3"}).returncode == -9
    done = job(0, **AGAIN)
    assert (done.returncode, done.stdout) == (0, f"{first} is finished (step 6): nothing to do\n")
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    done = job(1, **AGAIN)
    assert done.returncode == 0, done.stderr
    assert f"continuing {second} from {second / 'checkpoints' / 'step=000002.ckpt'}" in done.stdout
    assert yaml.safe_load((second / "config.yaml").read_text())["seed_everything"] == 1
    assert (len(losses(first)), len(losses(second))) == (6, 6)
    assert {path.name for path in first.parent.iterdir()} == {"t", "t-2"}


def test_last_without_a_checkpoint_begins_again_in_the_directory(killed_config: Path, textkeep: Textkeep) -> None:
    run = killed_config.parent / "runs" / "t"
    words = ["fit", "--config", killed_config, "--ckpt_path", "last"]
    for attempt in range(2):
        done = textkeep(*words, PYTHONPATH=str(ROOT), **{KILL_AT: "1"})
        assert done.returncode == -9
        assert (": the run starts over there" in done.stdout) == (attempt == 1)
    done = textkeep(*words, "--trainer.max_steps", 2, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in run.parent.iterdir()] == ["t"]
    assert [step for step, _ in losses(run)] == ["0", "1"]
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 2
    nothing = textkeep(*words, "--trainer.max_steps", 2, PYTHONPATH=str(ROOT))
    assert (nothing.returncode, nothing.stdout) == (0, f"{run} is finished (step 2): nothing to do\n")
    more = textkeep(*words, PYTHONPATH=str(ROOT))
    assert more.returncode == 0, more.stderr
    assert [step for step, _ in losses(run)] == [str(step) for step in range(6)]
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    refused = textkeep(*words, "--trainer.max_steps", 9, PYTHONPATH=str(ROOT))
    assert refused.returncode == 2
    assert "holds a finished run (step 6) whose checkpoints are gone; allowed: another directory" in refused.stderr


def test_a_second_fit_of_a_directory_is_refused_and_a_test_beside_it_is_not(
    killed_config: Path, textkeep: Textkeep
) -> None:
    run = killed_config.parent / "runs" / "t"
    settings = yaml.safe_load(killed_config.read_text())
    settings["trainer"]["max_steps"] = 100_000
    # All are kept: a test loads one while the fit goes on.
    settings["trainer"]["callbacks"][1]["init_args"] = {"every_n_train_steps": 100, "save_top_k": -1}
    killed_config.write_text(yaml.safe_dump(settings))
    options = ["--config", killed_config, "--ckpt_path", "last"]
    child = subprocess.Popen(
        command("fit", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(**JOB),
    )
    try:
        assert child.stdout is not None
        next(line for line in child.stdout if line.startswith("step ") and newest_checkpoint(run) is not None)
        for verb in ("fit", "validate"):
            refused = textkeep(verb, *options, PYTHONPATH=str(ROOT))
            assert refused.returncode == 2
            (line,) = [line for line in refused.stderr.splitlines() if line.startswith("textkeep: error: ")]
            assert f"{run} is being written by process {child.pid} on " in line
            assert "(SLURM job 77)" in line
        beside = textkeep("test", *options, PYTHONPATH=str(ROOT))
        assert beside.returncode == 0, beside.stderr
    finally:
        child.kill()
        child.communicate()
    done = textkeep("validate", *options, PYTHONPATH=str(ROOT))  # the dead keep no lock
    assert done.returncode == 0, done.stderr
    assert not list(run.glob("*.lock"))


def test_torchrun_that_starts_its_ranks_again_goes_on_with_the_run(killed_config: Path) -> None:
    run = killed_config.parent / "runs" / "t"
    settings = yaml.safe_load(killed_config.read_text())
    settings["trainer"] |= {"devices": 2, "strategy": "ddp"}
    killed_config.write_text(yaml.safe_dump(settings))
    environment = child_environment(PYTHONPATH=str(ROOT), **{KILL_AT: "3"})
    # Its second start finds the mark, goes on from step 2, and is killed at step 3 again: then the agent gives up.
    agent = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    program = ["-m", "textkeep.cli.main", "fit", "--config", str(killed_config)]
    killed = subprocess.run([*agent, *program], env=environment, capture_output=True, text=True, timeout=240)
    assert killed.returncode == 1
    assert killed.stdout.count(f"continuing {run} from {run / 'checkpoints' / 'step=000002.ckpt'}") == 1
    assert [path.name for path in run.parent.iterdir()] == ["t"]
    environment.pop(KILL_AT)
    program += ["--ckpt_path", "last"]
    done = subprocess.run([*agent, *program], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert saved(run)["global_step"] == 6
    assert [step for step, _ in losses(run)] == [str(step) for step in range(6)]
    assert list(run.parent.iterdir()) == [run]


def test_all_ranks_load_what_rank_zero_chose(killed_config: Path, textkeep: Textkeep) -> None:
    run = killed_config.parent / "runs" / "t"
    assert textkeep("fit", "--config", killed_config, "--trainer.max_steps", 2, PYTHONPATH=str(ROOT)).returncode == 0
    port = free_port()
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    words = ["--config", killed_config, "--ckpt_path", "last", "--trainer.devices", 2, "--trainer.strategy", "ddp"]

    def start(rank: str, *more: object) -> subprocess.Popen[str]:
        environment = child_environment(PYTHONPATH=str(ROOT), RANK=rank, LOCAL_RANK=rank, MASTER_PORT=port, **together)
        return subprocess.Popen(command("fit", *words, *more), stdout=subprocess.PIPE, text=True, env=environment)

    # The second rank sees another state of the file system: no run at all.
    ranks = [start("0"), start("1", "--trainer.default_root_dir", run.with_name("unseen"))]
    try:
        outputs = [child.communicate(timeout=250)[0] for child in ranks]
    finally:
        for child in ranks:
            child.kill()
            child.wait()
    assert [child.returncode for child in ranks] == [0, 0]
    assert f"continuing {run} from {run / 'checkpoints' / 'step=000002.ckpt'}" in outputs[0]
    assert "continuing" not in outputs[1]
    assert saved(run)["global_step"] == 6
    assert list(run.parent.iterdir()) == [run]


def saved(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)  # type: ignore[no-any-return]

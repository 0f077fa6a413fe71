"""Studies on a cluster: whatever ends tasks, or whoever waits for them, no run is lost, doubled or called failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.house import ROOT
from tests.support.processes import child_environment, command
from tests.support.slurm_cluster import Cluster, Job, until
from tests.support.stopped_runs import differences, values
from tests.support.study_children import CHILD, states, waited

pytestmark = pytest.mark.slow
WAITING = "TEXTKEEP_TEST_STUDY"
"""Variable by which a process on the cluster is known as one of a test's."""


class Studies:
    """A plan in a folder of its own, and the processes that wait for its tasks.

    Args:
        cluster: Where they run.
        folder: Of the plan.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self.study = cluster, folder, folder / "s"
        self.started: list[subprocess.Popen[str]] = []
        (folder / "base.yaml").write_text("trainer: {}\n")
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(  # of the tasks, too
            f"import sys\nfrom textkeep.runs.study import jobs\njobs.PROGRAM = (sys.executable, {str(CHILD)!r})\n"
        )

    def plan(self, arms: dict[str, Any], slurm: dict[str, Any] | None = None, **settings: Any) -> None:
        """Writes the plan; the runs are those of ``study_child.py``."""
        times = {"timeout_min": 5, "slurm_signal_delay_s": 60, **(slurm or {})}
        whole = {"directory": "s", "configs": ["base.yaml"], "untouched": False, "arms": arms, "slurm": times}
        (self.folder / "plan.yaml").write_text(yaml.safe_dump({**whole, **settings}, sort_keys=False))

    def start(self, *options: str, stand_in: bool = True) -> subprocess.Popen[str]:
        """Starts ``textkeep study`` on the head node."""
        path = f"{self.folder / 'site'}:{ROOT}" if stand_in else str(ROOT)
        environment = child_environment(HOME=str(self.folder), PYTHONPATH=path, WANDB_MODE="offline")
        words = self.cluster.command("head", *command("study", "plan.yaml", *options))
        marked = {**environment, WAITING: str(self.folder)}
        process = subprocess.Popen(
            words, cwd=self.folder, env=marked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.started.append(process)
        return process

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process that waits."""
        for pid, environment in self.cluster.processes().items():
            if environment.get(WAITING) == str(self.folder) and "SLURM_JOB_ID" not in environment:
                with suppress(OSError):  # it may have ended
                    if b"study" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                        os.kill(pid, number)

    def state(self, run: str) -> dict[str, Any]:
        return states(self.study).get(run, {})

    def task(self, run: str) -> Job:
        until(lambda: bool(self.state(run).get("task")), 60, f"the task of {run}")
        return Job(self.cluster, self.state(run)["task"], self.folder)

    def run(self, arm: str) -> Path:
        return self.study / "runs" / arm / "seed=0"

    def waits(self, *arms: str) -> None:
        """Lets the runs come to where they wait to be stopped."""
        marks = [waited(self.run(arm)) for arm in arms]
        until(lambda: all(mark.exists() for mark in marks), 120, lambda: f"{arms} to wait, not {states(self.study)}")

    def says(self, process: subprocess.Popen[str], words: str) -> None:
        """Reads what a process prints until it has printed these words."""
        assert process.stdout is not None
        said = []
        while not said or words not in said[-1]:
            said.append(process.stdout.readline())
            assert said[-1], said

    def steps(self, arm: str) -> list[str]:
        return (self.run(arm) / "starts.txt").read_text().split()

    def tasks(self) -> set[str]:
        """Numbers of all tasks that there have ever been of this study."""
        return {path.name.removesuffix("_submitted.pkl") for path in (self.study / "slurm").glob("*_submitted.pkl")}


@pytest.fixture
def studies(slurm: Cluster, tmp_path: Path) -> Iterator[Studies]:
    made = Studies(slurm, tmp_path)
    yield made
    slurm.run("scancel", "--full", "--signal=KILL", *{task.split("_")[0] for task in made.tasks()})
    made.signal(signal.SIGKILL)
    for process in made.started:
        process.kill()
        process.wait()


EVERY_STEP_ONCE = ["1", "2", "3", "4"]


def test_tasks_whose_time_is_over_or_that_are_requeued_are_waited_for(studies: Studies) -> None:
    """Also one that is asked to make room and has a time of grace, one that is cancelled, and one that fails itself."""
    arms: dict[str, Any] = {name: {"set": {"waits": "fit"}} for name in ("over", "requeued", "cancelled", "graced")}
    arms |= {name: {"set": {"waits": "test"}} for name in ("over-in-test", "requeued-in-test")}
    arms["over-and-hung"] = {"set": {"waits": "for ever"}}
    delay = {"slurm_signal_delay_s": 20}  # half of it is for saving
    studies.plan({**arms, "broken": {"set": {"model.broken": True}}}, delay)
    process = studies.start()
    studies.waits(*arms)
    for arm in arms:
        task = studies.task(f"{arm},seed=0")
        if "over" in arm:
            task.signal_everything(signal.SIGUSR2)
        elif "requeued" in arm:
            task.requeue()
        elif arm == "graced":
            task.signal_everything(signal.SIGTERM)
        else:
            task.cancel()
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 1, out
    found = states(studies.study)
    cancelled = found.pop("cancelled,seed=0")
    assert (cancelled["status"], cancelled["error"]) == ("interrupted", f"task {cancelled['task']} ended: CANCELLED")
    broken = found.pop("broken,seed=0")
    assert (broken["status"], broken["attempts"]) == ("failed", 1)
    assert "model.broken: true; allowed: false (exit code 2)" in broken["error"]
    for name, state in found.items():
        assert (state["status"], state["tested"], state["attempts"]) == ("finished", True, 2), (name, out)
        again = ["1"] * ("hung" in name)  # killed without a checkpoint
        assert studies.steps(name.split(",")[0]) == [*again, *EVERY_STEP_ONCE]
    assert {path.name for path in (studies.study / "runs").glob("*/*")} == {"seed=0"}
    assert len(studies.tasks()) == 8  # nothing was submitted twice
    assert "failed after" in out
    assert out.count("failed: ") == out.count("interrupted: ") == 1
    # No child takes the task for its own launch.
    told = (studies.run("over") / "environment.txt").read_text().split()
    assert told == ["SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"]
    # Started again: the one that was cancelled goes on, as another task.
    studies.plan(arms, delay)
    again = studies.start()
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0, out
    assert studies.steps("cancelled") == EVERY_STEP_ONCE
    assert studies.state("cancelled,seed=0")["task"] != cancelled["task"]
    assert len(studies.tasks()) == 9


def test_the_one_who_waits_is_replaced_and_no_task_doubled(studies: Studies) -> None:
    arms = {name: {"set": {"waits": "fit"}} for name in ("full", "lora")}
    studies.plan(arms)
    first = studies.start()
    studies.waits(*arms)
    tasks = studies.tasks()
    number = studies.task("full,seed=0").number.split("_")[0]
    second = studies.start()
    assert second.communicate(timeout=60)[0].startswith(
        "textkeep: error: study: another process runs full of s (process "
    )
    assert second.returncode == 2
    local = studies.start("--dry-run")
    assert f"running (task {number}_0 RUNNING)" in " ".join(local.communicate(timeout=60)[0].split())
    studies.signal(signal.SIGINT)
    out = first.communicate(timeout=60)[0]
    assert first.returncode == 130, out
    assert f"the tasks continue: {number}_0 {number}_1; scancel {number} ends them" in out
    local = studies.start("--local")
    assert f"full,seed=0 is task {number}_0 of SLURM, RUNNING (allowed: " in local.communicate(timeout=60)[0]
    # The lost connection, and the kill that leaves no time for anything.
    for lost in (signal.SIGHUP, signal.SIGKILL):
        waiting = studies.start()
        studies.says(waiting, "are waited for")
        studies.signal(lost)
        waiting.communicate(timeout=60)
        assert waiting.returncode == (130 if lost == signal.SIGHUP else -lost)
    last = studies.start()
    for arm in arms:
        studies.task(f"{arm},seed=0").requeue()
    out, _ = last.communicate(timeout=120)
    assert last.returncode == 0, out
    assert "2 runs have tasks of an earlier start: they are waited for" in out
    assert "submitted" not in out
    assert studies.tasks() == tasks
    for arm in arms:
        assert studies.state(f"{arm},seed=0")["attempts"] == 2
        assert studies.steps(arm) == EVERY_STEP_ONCE
        assert [path.name for path in studies.run(arm).parent.iterdir()] == ["seed=0"]


def test_a_task_leaves_a_run_alone_that_was_submitted_again(studies: Studies) -> None:
    """Who submitted was killed before SLURM had answered: the tasks are unknown when the study is started again."""
    studies.plan({"full": None}, {"slurm_additional_parameters": {"hold": True}})
    first = studies.start()
    unknown = studies.task("full,seed=0")
    studies.signal(signal.SIGKILL)
    first.communicate(timeout=60)
    path = studies.study / "state/full,seed=0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": ""}))
    second = studies.start()
    known = studies.task("full,seed=0")
    assert known.number != unknown.number
    studies.cluster.run("scontrol", "release", unknown.number)
    assert unknown.finish() == "COMPLETED"
    assert studies.state("full,seed=0")["status"] == "pending"
    assert not studies.run("full").exists()
    studies.cluster.run("scontrol", "release", known.number)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert (studies.state("full,seed=0")["attempts"], studies.state("full,seed=0")["task"]) == (1, known.number)


def test_the_end_of_the_time_comes_as_often_as_the_plan_allows(studies: Studies) -> None:
    studies.plan({"full": {"set": {"waits": "fit"}}}, {"slurm_max_num_timeout": 0})
    process = studies.start()
    studies.waits("full")
    studies.task("full,seed=0").signal_everything(signal.SIGUSR2)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    state = studies.state("full,seed=0")
    assert (state["status"], state["attempts"]) == ("failed", 1)
    assert "timed-out too many times" in state["error"]
    assert (studies.run("full") / "checkpoints/step=000002.ckpt").is_file()


def test_nodes_fail_and_slurm_is_not_reachable_for_a_while(studies: Studies) -> None:
    studies.plan({"full": {"set": {"waits": "fit"}}})
    process = studies.start()
    studies.waits("full")
    studies.says(process, "running: full,seed=0")
    node = studies.task("full,seed=0").facts()["NodeList"]
    studies.cluster.run("scontrol", "shutdown", "slurmctld")
    studies.says(process, "SLURM does not answer (")
    studies.cluster.run("slurmctld")
    studies.says(process, "SLURM answers again")
    studies.cluster.kill_node(node)
    until(lambda: studies.state("full,seed=0")["attempts"] == 2, 60, "the second attempt")
    studies.cluster.revive_node(node)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "failed" not in out
    assert len(studies.tasks()) == 1


@pytest.mark.timeout(600)
def test_a_real_run_that_is_stopped_twice_is_the_one_that_was_not(
    studies: Studies, tiny_settings: dict[str, Any]
) -> None:
    """By the end of its time, and by a requeue; the other one runs on this machine, with no cluster around it."""
    slow = {"class_path": "tests.support.marks.Marks", "init_args": {"slow": {"train": 0.3}}}
    saves = {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 5, "save_top_k": 1}}
    own = {"max_steps": 20, "val_check_interval": 5, "check_val_every_n_epoch": None, "callbacks": [saves, slow]}
    data = {**tiny_settings["data"], "train_modalities": "both", "tokens_per_batch": 128}
    config = {**tiny_settings, "trainer": {**tiny_settings["trainer"], **own}, "data": data}
    (studies.folder / "base.yaml").write_text(yaml.safe_dump(config))
    studies.plan({"full": None}, directory="whole", test=False)
    whole = studies.start("--local", stand_in=False)
    until((studies.folder / "whole/study.yaml").is_file, 60, "the other study")
    studies.plan({"full": None}, test=False)
    process = studies.start(stand_in=False)
    task = studies.task("full,seed=0")
    until(lambda: _last_step(studies.run("full")) >= 4, 120, "step 4")
    task.signal_everything(signal.SIGUSR2)
    until(lambda: studies.state("full,seed=0")["attempts"] == 2, 120, "the second attempt")
    until(lambda: _last_step(studies.run("full")) >= 10, 120, "step 10")
    task.requeue()
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, (out, (studies.study / "logs/full,seed=0.log").read_text())
    state = studies.state("full,seed=0")
    assert (state["status"], state["attempts"], state["task"]) == ("finished", 3, task.number)
    assert [path.name for path in studies.run("full").parent.iterdir()] == ["seed=0"]
    assert whole.wait(timeout=200) == 0
    assert differences(studies.folder / "whole/runs/full/seed=0", studies.run("full")) == []


def _last_step(run: Path) -> int:
    if not (run / "metrics.csv").is_file():
        return -1
    return max((int(step) for name, step, _ in values(run / "metrics.csv") if name == "train/loss"), default=-1)

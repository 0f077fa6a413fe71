"""Runs of two nodes that are stopped by signals, wherever they are: none hangs, none is lost, and all are exact."""

from __future__ import annotations

import json
import signal
import time

import pytest
import yaml

from tests.support.cluster_runs import TinyRun
from tests.support.slurm_cluster import Cluster, Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def stops_at(job: Job, place: str, first: int, skew: float) -> None:
    """Sends SIGUSR1 to the ranks when the run is at a place, and waits until SLURM has started the job again."""
    before = job.log.count(f"MARK {place} ")
    attempt = job.restarts
    job.says(f"MARK {place} ", times=before + 1)
    job.signal(signal.SIGUSR1, first, skew)
    job.restarted(attempt + 1)


def test_two_nodes_train_as_two_processes_do(slurm: Cluster, two_ranks: TinyRun) -> None:
    job = two_ranks.send(slurm, "nodes")
    assert job.finish() == "COMPLETED", job.log
    assert "MEMBER: 2/2" in job.log
    assert two_ranks.differences("nodes") == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_is_stopped_in_all_places_and_goes_on_each_time(slurm: Cluster, two_ranks: TinyRun, workers: int) -> None:
    """The end of a job's time is near: training, validation, importance, an evaluation; the ranks hear it apart."""
    name = f"stopped{workers}"
    job = two_ranks.send(slurm, name, f"--data.num_workers {workers}")
    first = workers // 2  # another rank is the first in each run
    for number, (place, skew) in enumerate((("train", 0.15), ("validate", 0.25), ("importance", 0.15), ("items", 0.0))):
        stops_at(job, place, (first + number) % 2, skew)
    assert job.finish() == "COMPLETED", job.log
    assert job.restarts == 4
    assert job.exit_code == 0
    assert "Killed" not in job.log  # after KILL_WAIT seconds
    assert two_ranks.differences(name, job.log) == []


def test_slurm_signals_every_process_of_a_step(slurm: Cluster, two_ranks: TinyRun) -> None:
    """``--signal`` and ``scancel --signal`` reach data workers and W&B's process too; it stays one W&B run."""
    loggers = [{"class_path": "RunCSVLogger"}, {"class_path": "ResilientWandbLogger"}]
    overlay = two_ranks.folder / "wandb.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    job = two_ranks.send(slurm, "everything", "--data.num_workers 2", f"--config {overlay}")
    job.says("MARK train 2")
    job.signal_everything(signal.SIGUSR1)
    job.restarted(1)
    assert job.finish() == "COMPLETED", job.log
    assert two_ranks.differences("everything", job.log) == []
    run = two_ranks.folder / "runs/everything"
    parts = [path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")]
    assert parts == [json.loads((run / "wandb_run.json").read_text())["id"]] * 2


def test_a_cancelled_job_leaves_a_checkpoint(slurm: Cluster, two_ranks: TinyRun) -> None:
    job = two_ranks.send(slurm, "cancelled", "--data.num_workers 1")
    job.says("MARK train 3")
    job.cancel()
    job.wait("CANCELLED")
    job.gone()
    assert "saved " in job.log  # before SLURM kills
    assert "Killed" not in job.log
    again = two_ranks.send(slurm, "cancelled", "--data.num_workers 1", "--ckpt_path last")
    assert again.finish() == "COMPLETED", again.log
    assert "continuing " in again.log
    assert two_ranks.differences("cancelled", job.log + again.log) == []


def test_a_signal_before_training_begins_is_not_lost(slurm: Cluster, two_ranks: TinyRun) -> None:
    """While modules are imported or weights are loaded; there is nothing to be saved."""
    job = two_ranks.send(slurm, "early")
    while len(job.ranks()) < 2:
        time.sleep(0.1)
    time.sleep(1.0)
    job.signal(signal.SIGUSR1, skew=0.15)
    assert job.finish(240) == "COMPLETED", job.log
    assert two_ranks.differences("early", job.log) == []

"""Jobs that SLURM starts again, whatever happened: each finds its own run, and goes on exactly."""

from __future__ import annotations

import signal

import pytest

from tests.support.cluster_runs import TinyRun, write_job
from tests.support.slurm_cluster import Cluster, Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_node_fails_before_the_first_checkpoint_and_after_it(slurm: Cluster, two_ranks: TinyRun) -> None:
    job = two_ranks.send(slurm, "node")
    for attempt, place in enumerate(("MARK train 2", "MARK train 8")):
        job.says(place)
        slurm.kill_node("node2")
        slurm.revive_node("node2")
        job.restarted(attempt + 1)
    assert job.finish() == "COMPLETED", job.log
    assert "the run starts over there" in job.log
    assert "continuing " in job.log
    assert two_ranks.differences("node") == []


def test_two_fits_in_a_job_that_is_started_again_during_the_second(slurm: Cluster, one_rank: TinyRun) -> None:
    """Both are given the same directory; the first one is finished and not trained again."""
    second = "--seed_everything 1"
    lines = [f"srun {one_rank.fit('several', more)} || exit" for more in ("", second)]
    job = slurm.sbatch(write_job(one_rank.folder, "\n".join(lines), "--nodes=1 --ntasks-per-node=1", "several.sh"))
    job.says("several-2")
    job.says("MARK train 7", times=job.log.count("MARK train 7") + 1)
    job.signal(signal.SIGUSR1)
    job.restarted(1)
    assert job.finish() == "COMPLETED", job.log
    runs = one_rank.folder / "runs"
    assert "several is finished (step 12): nothing to do" in job.log
    assert "seed_everything: 1\n" in (runs / "several-2/config.yaml").read_text()
    assert (runs / "several-2/checkpoints/step=000012.ckpt").is_file()
    assert not (runs / "several-3").exists()
    assert [line for line in one_rank.differences("several") if "another directory" not in line] == []


def test_tasks_of_an_array_keep_apart(slurm: Cluster, one_rank: TinyRun) -> None:
    """One is requeued by an administrator, and both get the signal before the end of the time."""
    line = f"srun {one_rank.fit('array', '--data.num_workers 1')}"
    script = write_job(one_rank.folder, line, "--nodes=1 --ntasks-per-node=1 --array=0-1", "array.sh")
    number = slurm.sbatch(script, "--output=slurm-%A_%a.out").number
    tasks = [Job(slurm, f"{number}_{task}", one_rank.folder) for task in (0, 1)]
    for task in tasks:
        task.says("MARK train 2")
    tasks[0].requeue()
    tasks[1].signal_everything(signal.SIGUSR1)
    for task in tasks:
        task.restarted(1)
    for task in tasks:
        assert task.finish() == "COMPLETED", task.log
        assert task.restarts == 1
    runs = one_rank.folder / "runs"
    assert sorted(path.name for path in runs.glob("array*")) == ["array", "array-2"]
    logs = "".join(task.log for task in tasks)
    for name in ("array", "array-2"):
        assert [line for line in one_rank.differences(name, logs) if "another directory" not in line] == []


def test_the_time_is_over(slurm: Cluster, one_rank: TinyRun) -> None:
    """With the signal before it the run goes on; without it a checkpoint is left."""
    slow = "--trainer.limit_val_batches 1 --trainer.max_steps 2000"
    warned = one_rank.send(slurm, "warned", slow, options="--time=60 --signal=USR1@10")
    over = one_rank.send(slurm, "over", slow, options="--time=60")
    for job in (warned, over):
        job.says("MARK train 3")
        job.end_in(20)
    warned.restarted(1)
    warned.says("continuing ")
    warned.cancel()
    assert over.finish() == "TIMEOUT"
    over.gone()
    assert "saved " in over.log
    assert "requeueing SLURM job" in warned.log
    assert "requeueing SLURM job" not in over.log

"""Wrong launches on a cluster end within seconds, with one line of one rank; an interactive session works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.cluster_runs import BIN, TinyRun, write_job
from tests.support.house import ROOT
from tests.support.slurm_cluster import Cluster

pytestmark = pytest.mark.slow
FIT = "textkeep fit --config soak.yaml --trainer.default_root_dir runs/t"
TWO_NODES = "--trainer.num_nodes 2 --trainer.strategy ddp"
WRONG = {
    "two nodes, and a config for one": (
        "--nodes=2 --ntasks-per-node=1",
        f"srun {FIT}",
        "SLURM starts 2 tasks on 2 nodes, but the trainer expects 1",
    ),
    "two tasks a node for one device": (
        "--nodes=2 --ntasks-per-node=2",
        f"srun {FIT} {TWO_NODES}",
        "SLURM starts 4 tasks on 2 nodes, but the trainer expects 2",
    ),
    "ntasks alone": (
        "--ntasks=2",
        f"srun {FIT} --trainer.devices 2",
        "--ntasks=2 leaves open how many tasks a node gets",
    ),
    "no srun": (
        "--nodes=2 --ntasks-per-node=1",
        f"{FIT} {TWO_NODES}",
        "has 2 tasks on 2 nodes, and only one process was started",
    ),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyRun.write(tmp_path_factory.mktemp("launches"), steps=2, processes=1).config


def test_wrong_launches_are_one_line(slurm: Cluster, config: Path) -> None:
    folder = config.parent
    jobs = {}
    for number, (name, (options, line, _)) in enumerate(WRONG.items()):
        jobs[name] = slurm.sbatch(write_job(folder, line, options, f"job{number}.sh"))
    for name, job in jobs.items():
        assert job.finish() == "FAILED", name
        said = [line for line in job.log.splitlines() if not line.startswith(("srun: ", "slurmstepd: ", "loading "))]
        assert len(said) == 1, (name, job.log)
        assert said[0].startswith("textkeep: error: "), name
        assert WRONG[name][2] in said[0]
        assert job.exit_code == 2, name
    assert not (folder / "runs").exists()


def test_gpus_that_a_task_does_not_see(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, config: Path, slurm: Cluster
) -> None:
    """Devices are pretended: this is refused before anything speaks to one."""
    with_gpus = Cluster.up(tmp_path_factory.mktemp("gpus") / "cluster", NODES=1, GPUS=2)
    line = f"srun textkeep fit --config {config} --trainer.accelerator gpu --trainer.devices 2"
    try:
        job = with_gpus.sbatch(write_job(tmp_path, line, "--nodes=1 --ntasks-per-node=2 --gpus-per-task=1"))
        assert job.finish() == "FAILED"
        (said,) = [line for line in job.log.splitlines() if line.startswith("textkeep: error: ")]
        assert re.search(r"node1: a process sees 1 GPU \(CUDA_VISIBLE_DEVICES=\d\), and trainer.devices is 2", said)
        assert "--gpus-per-node=2" in said
        assert "Traceback" not in job.log
    finally:
        with_gpus.down()


def test_an_interactive_session_starts_its_ranks_itself(slurm: Cluster, config: Path) -> None:
    run = config.parent / "runs/session"
    several = ("--trainer.default_root_dir", run, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    words = (BIN / "textkeep", "fit", "--config", config, *several)
    session = ("salloc", "--nodes=1", "--ntasks-per-node=2")
    done = slurm.run(*session, *words, cwd=config.parent, HOME=str(config.parent), PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr
    assert (run / "checkpoints/step=000002.ckpt").is_file()
    twice = slurm.run(*session, "srun", *words, cwd=config.parent, HOME=str(config.parent), PYTHONPATH=str(ROOT))
    assert twice.returncode == 2
    (said,) = [line for line in twice.stderr.splitlines() if line.startswith("textkeep: error: ")]
    assert "allowed: no srun (the ranks are started for you), or salloc --job-name=training" in said

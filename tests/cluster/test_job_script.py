"""The job script of configs/trainer runs as it stands; what is changed is said on sbatch's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster_runs import BIN, TinyRun
from tests.support.house import ROOT
from tests.support.slurm_cluster import Cluster

pytestmark = pytest.mark.slow
SCRIPT = ROOT / "configs/trainer/job.sh"
SMALLER = ("--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=2")
ON_CPUS = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]


def test_it_trains_on_two_nodes_and_ends_with_the_code_of_the_run(slurm: Cluster, tmp_path: Path) -> None:
    run = TinyRun.write(tmp_path, steps=3, processes=1)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    words = [str(run.config), *ON_CPUS, "--data.num_workers", "1", "--trainer.default_root_dir", "runs/job"]
    job = slurm.sbatch(SCRIPT, *SMALLER, words, cwd=tmp_path, **environment)
    assert job.facts()["Requeue"] == "1"
    wrong = slurm.sbatch(SCRIPT, *SMALLER, [*words, "--trainer.max_steps", "no"], cwd=tmp_path, **environment)
    assert job.finish(240) == "COMPLETED", job.log
    assert "MEMBER: 2/2" in job.log
    assert (tmp_path / "runs/job/checkpoints/step=000003.ckpt").is_file()
    assert Path(job.facts()["StdOut"]) == tmp_path / f"textkeep-{job.number}.log"
    assert wrong.finish(240) == "FAILED"
    assert wrong.exit_code in (2, 143)  # srun gives the highest; the second rank may be ended for the first one's sake
    assert "textkeep: error: " in wrong.log
    nothing = slurm.sbatch(SCRIPT, *SMALLER, cwd=tmp_path, **environment)
    assert nothing.finish() == "FAILED"
    assert "usage: sbatch job.sh CONFIG [OPTION ...]" in nothing.log

"""The cluster does what the tests of runs on it rely on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.slurm_cluster import Cluster, until

WAITS = """import os, signal, subprocess, sys, time
def note(number, frame):
    print(f"rank {os.environ['SLURM_PROCID']} got {number} at {time.time()}", flush=True)
signal.signal(signal.SIGUSR1, note)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(f"rank {os.environ['SLURM_PROCID']} of attempt {os.environ.get('SLURM_RESTART_COUNT', 0)} waits", flush=True)
while not os.path.exists("end"):
    time.sleep(0.05)
child.kill()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "waits.py").write_text(WAITS)
    path = tmp_path / "job.sh"
    path.write_text(
        "#!/bin/bash\n#SBATCH -N2 --ntasks-per-node=1 --requeue --open-mode=append\nsrun python3 waits.py\n"
    )
    return path


@pytest.mark.slow
def test_ranks_are_signalled_apart_and_alone(slurm: Cluster, script: Path) -> None:
    job = slurm.sbatch(script)
    for rank in (0, 1):
        job.says(f"rank {rank} of attempt 0 waits")
    assert len(job.ranks()) == 2  # and not their children
    job.signal(signal.SIGUSR1, first=1, skew=0.3)
    for rank in (0, 1):
        job.says(f"rank {rank} got {int(signal.SIGUSR1)} at")
    times = {line.split()[1]: float(line.split()[-1]) for line in job.log.splitlines() if " got " in line}
    assert times["0"] - times["1"] == pytest.approx(0.3, abs=0.2)
    (script.parent / "end").touch()
    assert job.finish() == "COMPLETED"
    assert (job.exit_code, job.restarts) == (0, 0)


@pytest.mark.slow
def test_a_node_that_fails_has_its_job_started_again(slurm: Cluster, script: Path) -> None:
    job = slurm.sbatch(script)
    job.says("rank 1 of attempt 0 waits")
    slurm.kill_node("node2")
    until(lambda: job.facts()["Restarts"] == "1", 60, "the restart")
    slurm.revive_node("node2")
    job.says("rank 1 of attempt 1 waits")
    (script.parent / "end").touch()
    assert job.finish() == "COMPLETED"


@pytest.mark.slow
def test_nothing_is_left_of_a_cluster_that_ends(tmp_path_factory: pytest.TempPathFactory, slurm: Cluster) -> None:
    folder = tmp_path_factory.mktemp("other") / "cluster"
    other = Cluster.up(folder, NODES=1)
    assert len(other.processes()) >= 4  # the first one, munged, slurmctld, slurmd
    first = int((folder / "pid").read_text())
    other.down()
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.slow
def test_a_folder_in_which_slurm_could_start_no_job_is_refused(tmp_path: Path, slurm: Cluster) -> None:
    with pytest.raises(AssertionError, match="too long a path by"):
        Cluster.up(tmp_path / ("long" * 20), NODES=1)

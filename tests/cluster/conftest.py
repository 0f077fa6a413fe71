"""The cluster and the undisturbed runs, for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster_runs import TinyRun
from tests.support.slurm_cluster import Cluster, UnavailableError

STEPS = 12


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes; its tests are skipped where there can be none."""
    try:
        cluster = Cluster.up(tmp_path_factory.mktemp("slurm") / "cluster", KILL_WAIT=90)  # it may be a slow machine
    except UnavailableError as why:
        pytest.skip(str(why))
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def two_ranks(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of two ranks, which has been trained once by two processes on one machine."""
    run = TinyRun.write(tmp_path_factory.mktemp("two_ranks"), STEPS, processes=2)
    run.leave_alone()
    return run


@pytest.fixture(scope="session")
def one_rank(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of one process, which has been trained once without SLURM."""
    run = TinyRun.write(tmp_path_factory.mktemp("one_rank"), STEPS, processes=1)
    run.leave_alone()
    return run

"""The cluster, for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_cluster import Cluster, UnavailableError


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes; its tests are skipped where there can be none."""
    try:
        cluster = Cluster.up(tmp_path_factory.mktemp("slurm") / "cluster")
    except UnavailableError as why:
        pytest.skip(str(why))
    yield cluster
    cluster.down()

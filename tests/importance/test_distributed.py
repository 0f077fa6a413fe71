"""Two real gloo processes give what one gives, and DDP still averages gradients afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from textkeep.importance import Snapshot, compare, probe

from .ddp_worker import BATCHES, ESTIMATORS
from .oracle import tiny_llama

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.importance.ddp_worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store"), str(tmp_path)], cwd=ROOT, env=environment)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    model = tiny_llama(tied=True)
    single = probe(model, BATCHES, ESTIMATORS, top_fraction=0.05, draws=2)
    ranks = [Snapshot.load(tmp_path / f"rank{rank}") for rank in range(2)]
    for found in ranks:
        assert found.meta["probe"]["fingerprint"] == single.meta["probe"]["fingerprint"]
        assert found.meta["world_size"] == 2
        for estimator in single.estimators:
            np.testing.assert_allclose(found.scores(estimator), single.scores(estimator), rtol=1e-10)
            for index in range(len(single.table)):
                np.testing.assert_allclose(found.rows[estimator][index], single.rows[estimator][index], rtol=1e-6)
            if estimator in single.masks:
                assert all(
                    np.array_equal(a, b) for a, b in zip(found.masks[estimator], single.masks[estimator], strict=True)
                )
        assert compare(single, found, "taylor").metrics["js"].value == pytest.approx(0.0, abs=1e-7)
    gradients = [torch.load(tmp_path / f"grad{rank}.pt", weights_only=True) for rank in range(2)]
    expected = []
    for batch in BATCHES[:2]:
        model.zero_grad(set_to_none=True)
        model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
        expected.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name in gradients[0]:
        mean = (expected[0][name] + expected[1][name]) / 2
        torch.testing.assert_close(gradients[0][name], mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradients[1][name], mean, rtol=1e-10, atol=1e-12)

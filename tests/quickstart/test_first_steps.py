"""The real quickstart, real models and data, against recorded values: what no tiny model shows.

About 6 minutes on one core: on one process that ends half-way and goes on, on two, and with halves of each batch.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textkeep.foundation.assets import locate

from .first_steps import RECORDED, STEPS, Trajectory, first_steps

LOSS, NORM, JS = 2e-3, 1e-2, 2e-3
"""Tolerances: nats a token, relative, absolute. Kinds of CPU, threads and the order of sums round differently."""
NO_CHECKPOINT = ("--trainer.enable_checkpointing", "false")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    for name in ("smollm2-135m-instruct", "whisper-tiny.en"):
        try:
            locate(name)
        except FileNotFoundError as error:
            pytest.skip(str(error))


def same(found: Trajectory) -> None:
    """Holds a run against the recording."""
    recorded = json.loads(RECORDED.read_text())
    wanted = recorded["steps"]
    assert [step["step"] for step in found.steps] == list(range(1, STEPS + 1)) == [step["step"] for step in wanted]
    assert [step["tokens"] for step in found.steps] == [step["tokens"] for step in wanted]
    for step, before in zip(found.steps, wanted, strict=True):
        assert step["loss"] == pytest.approx(before["loss"], abs=LOSS), f"step {step['step']}"
        assert step["gradient_norm"] == pytest.approx(before["gradient_norm"], rel=NORM), f"step {step['step']}"
    assert set(found.js) == set(recorded["js"]) == {"indomain_text", "heldout_text", "speech"}
    for probe, estimators in recorded["js"].items():
        for estimator, values in estimators.items():
            assert found.js[probe][estimator] == pytest.approx(values, abs=JS), f"{probe}, {estimator}"


def test_two_processes_with_half_a_batch_each(tmp_path: Path) -> None:
    words = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    same(first_steps(tmp_path, STEPS, True, *words, *NO_CHECKPOINT))


def test_two_halves_of_each_batch_one_after_the_other(tmp_path: Path) -> None:
    same(first_steps(tmp_path, STEPS, True, "--trainer.accumulate_grad_batches", "2", *NO_CHECKPOINT))


def test_one_process_that_ends_and_goes_on(tmp_path: Path) -> None:
    first = first_steps(tmp_path, STEPS // 2)
    assert len(first.steps) == STEPS // 2
    assert first.js == {}
    same(first_steps(tmp_path, STEPS, False, "--ckpt_path", "last", *NO_CHECKPOINT))

"""The real quickstart, real models and data, against recorded values: what no tiny model shows.

About 10 minutes on one core: the whole recording on one process, and its first half in three other ways.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textkeep.foundation.assets import locate

from .first_steps import RECORDED, STEPS, Trajectory, first_steps

LOSS, NORM, JS = 2e-3, 1e-2, 2e-3
"""Tolerances: nats a token, relative, absolute. Kinds of CPU, threads and the order of sums round differently."""
HALF = 10
NO_CHECKPOINT = ("--trainer.enable_checkpointing", "false")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    for name in ("smollm2-135m-instruct", "whisper-tiny.en"):
        try:
            locate(name)
        except FileNotFoundError as error:
            pytest.skip(str(error))


def same(found: Trajectory, steps: int) -> None:
    """Holds a run against the recording, up to an optimizer step."""
    recorded = json.loads(RECORDED.read_text())
    wanted = recorded["steps"][:steps]
    assert [step["step"] for step in found.steps] == list(range(1, steps + 1)) == [step["step"] for step in wanted]
    assert [step["tokens"] for step in found.steps] == [step["tokens"] for step in wanted]
    for step, before in zip(found.steps, wanted, strict=True):
        assert step["loss"] == pytest.approx(before["loss"], abs=LOSS), f"step {step['step']}"
        assert step["gradient_norm"] == pytest.approx(before["gradient_norm"], rel=NORM), f"step {step['step']}"
    assert set(found.js) == set(recorded["js"]) == {"indomain_text", "heldout_text", "speech"}
    for probe, estimators in recorded["js"].items():
        for estimator, values in estimators.items():
            expected = {step: value for step, value in values.items() if int(step) <= steps}
            assert expected
            assert found.js[probe][estimator] == pytest.approx(expected, abs=JS), f"{probe}, {estimator}"


def test_one_process(tmp_path: Path) -> None:
    same(first_steps(tmp_path, STEPS, False, *NO_CHECKPOINT), STEPS)


def test_two_processes_with_half_a_batch_each(tmp_path: Path) -> None:
    words = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    same(first_steps(tmp_path, HALF, True, *words, *NO_CHECKPOINT), HALF)


def test_two_halves_of_each_batch_one_after_the_other(tmp_path: Path) -> None:
    same(first_steps(tmp_path, HALF, True, "--trainer.accumulate_grad_batches", "2", *NO_CHECKPOINT), HALF)


def test_a_run_that_ends_and_goes_on(tmp_path: Path) -> None:
    first = first_steps(tmp_path, HALF // 2)
    assert len(first.steps) == HALF // 2
    assert first.js == {}
    same(first_steps(tmp_path, HALF, False, "--ckpt_path", "last", *NO_CHECKPOINT), HALF)

"""Real runs that are signalled in all places, continued, and held against one that was left alone."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.ports import free_port
from tests.support.stopped_runs import Ranks, differences, fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCONTROL = """#!/bin/sh
echo "$@ $(ps -o comm= --ppid $PPID | grep -c wandb)" >> "$(dirname "$0")/calls"
exit {code}
"""


@dataclass(frozen=True)
class Stop:
    """Where a run is signalled.

    Attributes:
        mark: The place and the step.
        number: The signal.
        first: The rank that gets it first.
        skew: Seconds until the others get it.
    """

    mark: str
    number: signal.Signals
    first: int = 0
    skew: float = 0.0

    @property
    def code(self) -> int:
        """The exit code of every rank."""
        return 130 if self.number == signal.SIGINT else 143


def write(folder: Path, settings: dict[str, Any], slow: dict[str, float], workers: int = 0) -> Path:
    """Writes the config of a run that measures often, in several batches; ``slow`` as ``Marks`` takes it."""
    source = settings["data"]["val"][0]
    refusals = {"class_path": "Refusals", "init_args": {"source": source, "max_new_tokens": 1}}
    callbacks = [
        {
            "class_path": "ImportanceTracker",
            "init_args": {"every_n_steps": 3, "at_checkpoints": False, "replicates": 0, "estimators": ["taylor"]},
        },
        {"class_path": "EvaluationSuite", "init_args": {"evaluations": {"no": refusals}, "every_n_steps": 4}},
        {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 100}},
        {"class_path": "tests.support.marks.Marks", "init_args": {"slow": slow}},
    ]
    trainer = {
        **settings["trainer"],
        "max_steps": 10,
        "accumulate_grad_batches": 2,
        "val_check_interval": 10,  # batches, so at step 5
        "check_val_every_n_epoch": None,
        "callbacks": callbacks,
    }
    probe = {"source": source, "modality": "text", "examples": 4, "batch_size": 1}
    data = {**settings["data"], "tokens_per_batch": 100, "eval_tokens_per_batch": 60, "num_workers": workers}
    config = {**settings, "trainer": trainer, "data": {**data, "probes": {"text": probe}}}
    path = folder / f"{'slow' if slow else 'plain'}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def stopped_and_continued(
    folder: Path, settings: dict[str, Any], stops: list[Stop], ranks: int = 1, workers: int = 0
) -> list[str]:
    """Lists what a run that is stopped so often tells otherwise than one that is left alone."""
    plain = write(folder, settings, {}, workers)
    slow = write(folder, settings, {"train": 0.1, "importance": 0.2, "items": 0.2, "validate": 0.2}, workers)
    whole, run = folder / "whole", folder / "run"
    fit(["fit", "--config", plain, "--trainer.default_root_dir", whole], folder / "log", ranks)
    last: list[object] = []
    for stop in stops:
        words = ["fit", "--config", slow, "--trainer.default_root_dir", run, *last]
        with Ranks(words, folder / "log", ranks, PYTHONFAULTHANDLER="1") as running:
            running.wait_for(f"MARK {stop.mark}\n", stop.first)
            began = time.monotonic()
            running.send(stop.number, stop.skew, stop.first)
            assert running.end() == [stop.code] * ranks, running.output()[-3000:]
            assert "Traceback" not in running.output(), running.output()[-3000:]
            assert time.monotonic() - began < 60, stop
        last = ["--ckpt_path", "last"]
    fit(["fit", "--config", plain, "--trainer.default_root_dir", run, *last], folder / "log", ranks)
    return differences(whole, run)


def test_one_process_stopped_everywhere(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    stops = [
        Stop("train 1", signal.SIGTERM),
        Stop("importance 3", signal.SIGINT),
        Stop("items 4", signal.SIGTERM),
        Stop("validate 5", signal.SIGINT),
    ]
    assert stopped_and_continued(tmp_path, tiny_settings, stops, workers=1) == []


def test_two_ranks_that_are_signalled_one_after_the_other(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    stops = [
        Stop("train 1", signal.SIGTERM, first=0, skew=0.15),
        Stop("importance 3", signal.SIGTERM, first=1, skew=0.25),
        Stop("items 4", signal.SIGINT, first=1, skew=0.15),
        Stop("validate 6", signal.SIGTERM, first=1, skew=0.25),
    ]
    assert stopped_and_continued(tmp_path, tiny_settings, stops, ranks=2, workers=1) == []


def slurm_job(folder: Path, code: int) -> dict[str, str]:
    """The variables of a SLURM job of one task, whose ``scontrol`` writes down what it was asked."""
    tool = folder / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(SCONTROL.format(code=code))
    tool.chmod(0o755)
    numbers = dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID"), "0")
    return {
        **numbers,
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "fit",
        "SLURM_NTASKS": "1",
        "SLURM_NODELIST": "localhost",
    }


def test_slurms_signal_is_noted_from_the_first_moment_and_the_job_queued_again_last_of_all(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    config = write(tmp_path, tiny_settings, {"importance": 0.1})
    words = ["fit", "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    with Ranks(words, tmp_path / "log", **slurm_job(tmp_path, code=0)) as running:
        time.sleep(1.5)  # torch is being imported
        running.send(signal.SIGUSR1)
        running.wait_for("requeueing SLURM job 7")
        end = time.monotonic() + 10
        while not (calls := tmp_path / "bin" / "calls").is_file() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        assert running.processes[0].poll() is None  # the job's script must not go on
        running.send(signal.SIGTERM)  # SLURM's
        assert running.end(10) == [143]
    assert calls.read_text() == "requeue 7 0\n"  # W&B's process has ended
    assert "MARK train" not in running.output()


def test_a_job_that_slurm_does_not_queue_again_ends_with_a_line_and_an_error(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    config = write(tmp_path, tiny_settings, {"train": 0.1})
    words = ["fit", "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    with Ranks(words, tmp_path / "log", **slurm_job(tmp_path, code=1)) as running:
        running.wait_for("MARK train 1\n")
        running.send(signal.SIGUSR1)
        assert running.end() == [1]
    assert "SLURM job 7 was not requeued" in running.output()
    assert list((tmp_path / "run" / "checkpoints").glob("step=*.ckpt"))


@pytest.mark.parametrize(("number", "code", "place"), [(signal.SIGTERM, 143, "setup"), (signal.SIGINT, 130, "items")])
def test_before_training_begins_a_signal_ends_the_run_at_once(
    tiny_settings: dict[str, Any], tmp_path: Path, number: int, code: int, place: str
) -> None:
    """While the model is built, and while the untouched one is measured: what is finished of that stays, whole."""
    config = write(tmp_path, tiny_settings, {place: 30.0})
    words = ["fit", "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    with Ranks(words, tmp_path / "log") as running:
        running.wait_for(f"MARK {place}")
        running.send(number)
        assert running.end(15) == [code]
    assert "Traceback" not in running.output()
    assert (tmp_path / "run").exists() is (place == "items")
    assert not [path.name for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".ckpt")]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_a_measuring_verb_ends_between_two_batches(verb: str, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    config = write(tmp_path, tiny_settings, {verb: 0.3})
    words = [verb, "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    with Ranks(words, tmp_path / "log") as running:
        running.wait_for(f"MARK {verb}")
        running.send(signal.SIGTERM)
        assert running.end(30) == [143]
    assert running.output().count(f"MARK {verb}") <= 2


def test_a_second_ctrl_c_does_not_wait(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    config = write(tmp_path, tiny_settings, {"train": 20.0})
    words = ["fit", "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    with Ranks(words, tmp_path / "log") as running:
        running.wait_for("MARK train 0\n")
        running.send(signal.SIGINT)
        running.wait_for("Ctrl-C again stops at once")
        running.send(signal.SIGINT)
        assert running.end(15) == [130]
    assert not list(tmp_path.rglob("*.ckpt"))


def ended(group: int) -> bool:
    """Waits for all processes of a group."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_sigterm_of_rank_zero_alone_ends_the_rank_that_it_started(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    config = write(tmp_path, tiny_settings, {"train": 0.1})
    words = ["fit", "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    with Ranks([*words, "--trainer.devices", 2, "--trainer.strategy", "ddp"], tmp_path / "log") as running:
        running.wait_for("MARK train 1\n", times=2)
        running.send(signal.SIGTERM)
        assert running.end() == [143]
        assert "saved" in running.output()
        assert ended(running.pids[0])


def test_a_rank_that_waits_for_one_that_never_comes_ends_at_sigterm(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    config = write(tmp_path, tiny_settings, {"train": 0.1})
    words = ["fit", "--config", config, "--trainer.default_root_dir", tmp_path / "run"]
    alone = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
    }
    with Ranks([*words, "--trainer.devices", 2, "--trainer.strategy", "ddp"], tmp_path / "log", **alone) as running:
        running.wait_for("GLOBAL_RANK: 0")
        time.sleep(1)
        running.send(signal.SIGTERM)
        assert running.end(30) == [143]
    assert not (tmp_path / "run").exists()

"""Runs that are signalled, continued, and held against a run that was left alone.

``Ranks`` starts the processes of a run, by itself or as a launcher does; ``signal_ranks`` signals any processes by
number, one some milliseconds after the other; ``differences`` compares two run directories row by row.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.processes import child_environment, command

ROOT = Path(__file__).resolve().parents[2]
HUNG = 120.0
"""Seconds after which a process that was asked to stop is said to hang."""


class HungError(AssertionError):
    """A process did not end."""


def signal_ranks(pids: Sequence[int], number: int, skew: float = 0.0) -> None:
    """Signals processes in this order, ``skew`` seconds one after the other; one that has ended is left out."""
    for place, pid in enumerate(pids):
        if place:
            time.sleep(skew)
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Ranks:
    """The processes of one command, one a rank; rank 0 first. Use it as a context: what is left is killed.

    Args:
        words: After ``textkeep``.
        folder: For the ranks' output, ``rank0.log`` and so on; appended to.
        ranks: How many; more than one join through the environment variables that torchrun sets.
        environment: Further variables.
    """

    def __init__(self, words: Sequence[object], folder: Path, ranks: int = 1, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.logs = [folder / f"rank{rank}.log" for rank in range(ranks)]
        self._starts = [log.stat().st_size if log.exists() else 0 for log in self.logs]
        more = ["--trainer.devices", ranks, "--trainer.strategy", "ddp"] if ranks > 1 else []
        port = free_port()
        self.processes = []
        for rank, log in enumerate(self.logs):
            variables = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline", **environment}
            if ranks > 1:
                variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
                variables |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
            with log.open("ab") as output:
                self.processes.append(
                    subprocess.Popen(
                        command(*words, *more),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=child_environment(**variables),
                        start_new_session=True,
                    )
                )

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # data workers and W&B's process too
            process.wait()

    @property
    def pids(self) -> list[int]:
        """The ranks' process numbers."""
        return [process.pid for process in self.processes]

    def output(self, rank: int = 0) -> str:
        """What a rank has printed so far."""
        with self.logs[rank].open("rb") as log:
            log.seek(self._starts[rank])
            return log.read().decode(errors="replace")

    def wait_for(self, text: str, rank: int = 0, times: int = 1, seconds: float = HUNG) -> None:
        """Waits until a rank has printed something so many times; fails if it ends or takes too long."""
        end = time.monotonic() + seconds
        while self.output(rank).count(text) < times:
            if self.processes[rank].poll() is not None or time.monotonic() > end:
                raise AssertionError(f"rank {rank} did not print {text!r}:\n{self.output(rank)[-3000:]}")
            time.sleep(0.01)

    def send(self, number: int, skew: float = 0.0, first: int = 0) -> None:
        """Signals every rank, rank ``first`` first and the others ``skew`` seconds later."""
        signal_ranks([self.pids[first], *(pid for rank, pid in enumerate(self.pids) if rank != first)], number, skew)

    def end(self, seconds: float = HUNG) -> list[int]:
        """Waits for all ranks and gives their exit codes.

        Raises:
            HungError: With the end of each rank's output.
        """
        end = time.monotonic() + seconds
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.1))
        if any(process.poll() is None for process in self.processes):
            for process in self.processes:
                process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER=1 in ``environment`` shows where
            time.sleep(1)
            tails = [f"rank {rank}:\n{self.output(rank)[-3000:]}" for rank in range(len(self.logs))]
            raise HungError("\n".join(tails))
        return [process.returncode for process in self.processes]


def fit(words: Sequence[object], folder: Path, ranks: int = 1, **environment: str) -> str:
    """Runs a command to its end and gives what rank zero printed; fails where an exit code is not 0."""
    with Ranks(words, folder, ranks, **environment) as run:
        codes = run.end(600)
        assert codes == [0] * ranks, run.output()[-3000:]
        return run.output()


def differences(whole: Path, other: Path, extra_steps: Sequence[int] = ()) -> list[str]:
    """Lists what a run directory tells otherwise than that of a run which was left alone; texts are compared.

    Args:
        whole: Of the run that was left alone.
        other: Of the run that was stopped and continued.
        extra_steps: Steps that may have more values than in ``whole``: a checkpoint's importance is measured.

    Returns:
        A line each for a value that is missing, differs, was not there or is there more than once.
    """
    return [
        *_metrics(whole / "metrics.csv", other / "metrics.csv", extra_steps),
        *_lines(whole, other, extra_steps),
        *_weights(whole, other),
        *[f"left over: {path.relative_to(other)}" for path in sorted(other.rglob("*.tmp"))],
        *[f"left over: {path.name}" for path in [*other.glob("hpc_ckpt*"), *other.glob("error.txt")]],
    ]


def values(path: Path) -> Counter[tuple[str, str, str]]:
    """Gives (column, step, value) of a ``metrics.csv``, counted; when an epoch was logged does not count."""
    with path.open(newline="") as file:
        return Counter(
            (name, row["step"], value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name not in ("step", "epoch")
        )


def _metrics(whole: Path, other: Path, extra_steps: Sequence[int]) -> Iterator[str]:
    expected, found = values(whole), values(other)
    steps = {str(step) for step in extra_steps}
    for (name, step, value), count in sorted(expected.items()):
        if found[name, step, value] != count:
            others = [v for (n, s, v), times in found.items() if (n, s) == (name, step) for _ in range(times)]
            yield f"{name} at step {step}: {value}, not {others or 'missing'}"
    known = {(name, step) for name, step, _ in expected}
    for name, step, value in sorted(found):
        if (name, step) not in known and step not in steps:
            yield f"{name} at step {step}: {value} is more than there was"


def _lines(whole: Path, other: Path, extra_steps: Sequence[int]) -> Iterator[str]:
    """Compares the files of lines below importance/ and evaluation/."""
    for part in ("importance", "evaluation"):
        files = {path.relative_to(whole) for path in (whole / part).rglob("*.jsonl")}
        more = {path.relative_to(other) for path in (other / part).rglob("*.jsonl")}
        allowed = {f"step={step:06d}.jsonl" for step in extra_steps}
        yield from (f"{path}: missing" for path in sorted(files - more))
        yield from (f"{path}: more than there was" for path in sorted(more - files) if path.name not in allowed)
        for path in sorted(files & more):
            expected, found = _records(whole / path), _records(other / path)
            if path.name == "summary.jsonl":
                found = [line for line in found if line in expected or line.get("step") not in extra_steps]
            if expected != found:
                yield f"{path}: other lines ({len(expected)} and {len(found)})"


def _records(path: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "time", "created")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def _weights(whole: Path, other: Path) -> Iterator[str]:
    """Compares the last checkpoints: weights, the optimizer's state, counters of steps."""
    import torch

    one, two = (torch.load((run / "checkpoints/last.ckpt").resolve(), weights_only=True) for run in (whole, other))
    for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        if not _equal(one[key], two[key]):
            yield f"last.ckpt: {key} differs"


def _equal(one: Any, two: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, Mapping):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool(one == two)

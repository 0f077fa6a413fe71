"""Step time and memory of an arm relative to full fine-tuning; both run at once and take turns."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from .arms import FULL, Arm, conditions, write_conditions
from .runs import CLOCK, environment, fit_command, last_error, prepare

GROUP = 2  # steps per turn, on the same two batches each time
ROUNDS = 3


class Runner:
    """A fit that waits for its turn.

    Args:
        arm: Which.
        out: Folder of the benchmark.
    """

    def __init__(self, arm: Arm, out: Path) -> None:
        self.directory = out / f"cost_{arm.folder}"
        shutil.rmtree(self.directory, ignore_errors=True)
        clock = {
            "class_path": CLOCK,
            "init_args": {"path": str(out / f"cost_{arm.folder}.clock.json"), "group": GROUP},
        }
        values = conditions(out, GROUP * (ROUNDS + 2), at_start=False, callbacks=[])
        values["trainer"] |= {"callbacks": [clock], "overfit_batches": GROUP, "limit_val_batches": 0}
        shared = write_conditions(out / f"cost_{arm.folder}.conditions.yaml", values)
        self.log = out / f"cost_{arm.folder}.log"
        self.log.write_text("")
        prepare(arm, out, self.log)
        with self.log.open("a") as errors:
            self.process = subprocess.Popen(
                fit_command(arm, shared, self.directory),
                cwd=out,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.read()

    def turn(self) -> dict[str, Any]:
        """Lets it take its steps, and reads what they cost."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next line of its clock.

        Raises:
            RuntimeError: If it ended instead.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("CLOCK "):
                return json.loads(line.removeprefix("CLOCK "))
        raise RuntimeError(last_error(self.log))

    def end(self) -> None:
        """Ends it and removes its directory."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def measure_costs(arm: Arm, out: Path) -> dict[str, Any]:
    """Ratios to full fine-tuning.

    Args:
        arm: Which.
        out: Folder of the benchmark.

    Returns:
        Its line: median over the rounds of the ratio of processor time, and the ratio of peak memory during steps;
        with ``error`` if it failed.
    """
    started = time.perf_counter()
    runners: list[Runner] = []
    try:
        for each in (Arm(FULL), arm):
            runners.append(Runner(each, out))
            runners[-1].turn()  # the first steps also allocate the optimizer's state
        turns = [[runner.turn() for runner in runners] for _ in range(ROUNDS)]
    except RuntimeError as error:
        return {"arm": arm.name, "seconds": time.perf_counter() - started, "error": str(error)}
    finally:
        for runner in runners:
            runner.end()
    times = [[sum(turn["cpu"]) for turn in turn_pair] for turn_pair in turns]
    peaks = [[turn["peak_mib"] for turn in turn_pair] for turn_pair in turns]
    return {
        "arm": arm.name,
        "seconds": time.perf_counter() - started,
        "time_ratio": statistics.median(own / full for full, own in times),
        "time_ratios": [own / full for full, own in times],
        "full_cpu_per_step": statistics.median(full for full, _ in times) / GROUP,
        "peak_mib": max(own for _, own in peaks),
        "full_peak_mib": max(full for full, _ in peaks),
        "memory_ratio": max(own for _, own in peaks) / max(full for full, _ in peaks),
    }

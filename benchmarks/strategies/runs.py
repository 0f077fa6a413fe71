"""One arm: its own `textkeep fit`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .arms import BASE, FULL, ROOT, Arm, conditions, write_conditions
from .results import read_run

CLOCK = "benchmarks.strategies.step_clock.StepClock"


def prepare(arm: Arm, out: Path, log: Path) -> bool:
    """Runs the commands that its overlays' headers list before the fit, unless their results exist.

    Args:
        arm: Which.
        out: Folder where they and the fit run; relative paths refer to it.
        log: Receives what they print.

    Returns:
        Whether all of them succeeded.
    """
    for overlay in arm.overlays:
        text = overlay.read_text(encoding="utf-8").replace("\\\n#", " ")
        for line in re.findall(r"^#   textkeep (.*)$", text, re.MULTILINE):
            words = shlex.split(line)
            made = words[words.index("-o") + 1] if "-o" in words else ""
            if words[0] == "fit" or (made and (out / made).exists()):
                continue
            with log.open("a") as file:
                command = [sys.executable, "-m", "textkeep.cli.main", *words]
                done = subprocess.run(command, cwd=out, env=environment(), stdout=file, stderr=subprocess.STDOUT)
            if done.returncode:
                return False
    return True


def fit_command(arm: Arm, shared: Path, directory: Path) -> list[str]:
    """The child process's arguments; the overlay comes last, so that it may append callbacks and set its own rate."""
    files = [BASE, shared, *arm.overlays]
    named = [word for file in files for word in ("--config", str(file))]
    return [sys.executable, "-m", "textkeep.cli.main", "fit", *named, "--trainer.default_root_dir", str(directory)]


def environment() -> dict[str, str]:
    """Offline, with this checkout first on the path, and ``OMP_NUM_THREADS`` threads (two by default)."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    threads = os.environ.get("OMP_NUM_THREADS", "2")
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads}


def run_arm(arm: Arm, out: Path, steps: int) -> dict[str, Any]:
    """Trains an arm and reads what it left.

    Args:
        arm: Which.
        out: Folder of the benchmark.
        steps: Optimizer steps.

    Returns:
        Its line of results; with ``error`` if it failed.
    """
    directory = out / arm.folder
    shutil.rmtree(directory, ignore_errors=True)  # of an interrupted run
    clock = {"class_path": CLOCK, "init_args": {"path": str(out / f"{arm.folder}.clock.json")}}
    shared = write_conditions(
        out / f"{arm.folder}.conditions.yaml", conditions(out, steps, at_start=arm.measures_start, callbacks=[clock])
    )
    log = out / f"{arm.folder}.log"
    log.write_text("")
    started = time.perf_counter()
    failed = not prepare(arm, out, log)
    if not failed:
        with log.open("a") as file:
            words = fit_command(arm, shared, directory)
            failed = bool(
                subprocess.run(words, cwd=out, env=environment(), stdout=file, stderr=subprocess.STDOUT).returncode
            )
    line: dict[str, Any] = {"arm": arm.name, "seconds": time.perf_counter() - started}
    if failed:
        return line | {"error": last_error(log)}
    try:
        return line | read_run(directory, out / FULL, out / f"{arm.folder}.clock.json")
    except (OSError, ValueError, KeyError, StopIteration) as error:
        return line | {"error": f"its results cannot be read: {error!r}"}


def reread(arm: Arm, out: Path) -> dict[str, Any] | None:
    """An arm's line from its existing run directory; ``None`` if it has not ended."""
    clock = out / f"{arm.folder}.clock.json"
    if not clock.is_file():
        return None
    try:
        return {"arm": arm.name} | read_run(out / arm.folder, out / FULL, clock)
    except (OSError, ValueError, KeyError):
        return None


def last_error(log: Path) -> str:
    """The line of a log that states the error."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no output")

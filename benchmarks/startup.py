"""How long a command with nothing to compute takes, compared with an idle Python, in one run.

    python -m benchmarks.startup
    python -m benchmarks.startup --rounds 21 --json

Seconds of wall clock and of CPU of new processes. Each command runs once per round, in turn, ``python -c pass`` and
``python -c "import torch"`` among them, and ``huggingface-cli``'s successor ``hf --help`` as another command line, if
it is installed; a ratio is taken within its round. Figures are medians over the rounds, with the files in the page
cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NOTHING = "python -c pass"
WORDS = (
    "--help",
    "assets --list",
    "report --help",
    "watch --help",
    "study --help",
    "export --help",
    "fit --help",
    "ft",
)
"""The arguments of ``textkeep``: ``fit --help`` loads what a config may name, ``ft`` is a typo."""


def commands() -> dict[str, list[str]]:
    """Returns the command lines by their displayed names."""
    python, beside = sys.executable, Path(sys.executable).with_name("hf")
    found = {NOTHING: [python, "-c", "pass"], "python -c 'import torch'": [python, "-c", "import torch"]}
    found |= {f"textkeep {words}": [python, "-m", "textkeep.cli.main", *words.split()] for words in WORDS}
    if peer := shutil.which(beside) or shutil.which("hf"):
        found["hf --help"] = [peer, "--help"]
    return found


def seconds(line: Sequence[str]) -> tuple[float, float]:
    """Runs a command and returns its wall-clock and CPU seconds."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before = time.perf_counter(), spent()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=environment)
    return time.perf_counter() - began, spent() - before


def main() -> None:
    """Prints a row per command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="a row a line")
    options = parser.parse_args()
    lines = commands()
    for line in lines.values():
        seconds(line)  # read its files from disk once
    rounds = [{name: seconds(line) for name, line in lines.items()} for _ in range(options.rounds)]
    if not options.json:
        print(f"{'':28}{'wall s':>8}{'CPU s':>8}{'x python, CPU':>15}")
    for name in lines:
        wall, cpu = (statistics.median(found[name][part] for found in rounds) for part in (0, 1))
        ratio = statistics.median(found[name][1] / found[NOTHING][1] for found in rounds)
        row = {"command": name, "wall": round(wall, 3), "cpu": round(cpu, 3), "ratio": round(ratio, 1)}
        print(json.dumps(row) if options.json else f"{name:28}{wall:8.2f}{cpu:8.2f}{ratio:15.1f}", flush=True)


if __name__ == "__main__":
    main()

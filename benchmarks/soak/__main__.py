"""Kills a run at random moments, continues it each time, and compares it with an undisturbed run.

    python -m benchmarks.soak --kills 50                          # kill -9 of the whole process group
    python -m benchmarks.soak --kills 50 --workers 2 --json out.json
    python -m benchmarks.soak --kills 10 --processes 2 --signal TERM
    python -m benchmarks.soak --kills 20 --cluster                # two nodes of SLURM, disturbed in every way there
    python -m benchmarks.soak --kills 60 --steps 180 --cluster --kinds "SIGUSR1, rank"   # each skew and order ten times

Both train the same tiny model with checkpoints, validations, evaluations and measurements of importance. Weights, the
optimizer's state, every row of metrics.csv, every record and snapshot and the names of all files must agree bit for
bit; the exit code is 1 if anything differs. The moments are drawn uniformly over the time of the undisturbed run, so
that saves, renames, validations and measurements are hit in proportion to their duration.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from .cluster import ClusterSoak
from .comparison import Comparison, compare_runs
from .run import Soak, Telling

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
SHOWN = 12


def main(argv: list[str] | None = None) -> int:
    """Runs the command; 1 if anything differs."""
    options = _parser().parse_args(argv)
    if options.fork and options.processes > 1:
        raise SystemExit("--fork: further ranks are started with the command line of the soak; allowed: --processes 1")
    if options.fork:
        torch.set_num_threads(1)  # a fork lacks the threads that its parent would wait for
    folder = options.out or Path(tempfile.mkdtemp(prefix="soak-"))
    soak = _soak(options, folder)
    told = _trial(soak, options)
    asked = options.cluster or options.signal != "KILL"
    found = compare_runs(soak.whole, soak.parts, ordered=not asked)
    print(_text(found))
    if options.json:
        settings = {k: v for k, v in vars(options).items() if isinstance(v, int | str)}
        options.json.write_text(json.dumps(_record(found, told, settings), indent=1) + "\n", encoding="utf-8")
    if found.equal and options.out is None:
        shutil.rmtree(folder)
    else:
        print(f"runs: {folder}")
    return 0 if found.equal else 1


def _soak(options: argparse.Namespace, folder: Path) -> Soak:
    if options.cluster:
        return ClusterSoak(folder, options.steps, options.workers, options.kinds)
    asked = options.signal != "KILL"
    return Soak(folder, options.steps, options.workers, options.processes, options.fork, asked)


def _trial(soak: Soak, options: argparse.Namespace) -> Telling:
    soak.reference()
    if isinstance(soak, ClusterSoak):
        return soak.disturbed(options.kills, options.seed)
    return soak.killed(options.kills, SIGNALS[options.signal], options.seed)


def _text(found: Comparison) -> str:
    lines = [found.table()]
    for kind, differences in found.differences.items():
        lines += [f"{kind}: {line}" for line in differences[:SHOWN]]
        if len(differences) > SHOWN:
            lines.append(f"{kind}: and {len(differences) - SHOWN} more")
    return "\n".join(lines)


def _record(found: Comparison, told: Telling, settings: Mapping[str, int | str]) -> dict[str, object]:
    packages = {name: version(name) for name in ("torch", "lightning", "transformers")}
    return {
        **settings,
        **told.as_dict(),
        "compared": dict(found.compared),
        "differences": found.differences,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **packages,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="times that the run is killed (default: 50)")
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps (default: 120)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read, per rank (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="ranks of DDP (default: 1)")
    parser.add_argument("--signal", choices=SIGNALS, default="KILL", help="what the group is sent (default: KILL)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--cluster", action="store_true", help="two nodes of SLURM: needs root, slurm-wlm and munge")
    parser.add_argument("--kinds", default="", help="of a cluster's disturbances: those whose names contain this")
    parser.add_argument("--fork", action="store_true", help="begin with a fork of this process, without imports")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--out", type=Path, help="folder to keep both runs in (default: a temporary one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

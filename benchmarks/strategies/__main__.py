"""Trains every strategy and objective for a few real steps under equal conditions, and reports what each kept and cost.

    python -m benchmarks.strategies --out outputs/strategies            # every overlay of configs/, one run each
    python -m benchmarks.strategies --out outputs/strategies --costs    # step time and memory relative to full tuning
    python -m benchmarks.strategies --out outputs/strategies --table    # the tables of docs/results/strategies.md

An arm is `textkeep fit --config configs/quickstart.yaml` with one overlay and the shared conditions, in its own child
process. Arms already in results.jsonl are skipped; one that fails is listed there and the others continue. All start
from the same model, so what is measured at step 0 is measured once, by the first arm.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .arms import FULL, find_arms
from .costs import measure_costs
from .results import Results
from .runs import reread, run_arm
from .table import tables


def main() -> int:
    """Runs the command; 1 if an arm failed."""
    options = _parser().parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.reread:
        for arm in find_arms():
            if (line := reread(arm, out)) is not None:
                Results(out / "results.jsonl").put(line)
        return 0
    if options.table:
        print(tables(out))
        return 0
    known = {arm.name: arm for arm in find_arms()}
    unknown = sorted(set(options.only or ()) - set(known))
    if unknown:
        raise SystemExit(f"strategies: no arm {unknown[0]}; allowed: {', '.join(known)}")
    arms = [known[name] for name in options.only or known]
    results = Results(out / ("costs.jsonl" if options.costs else "results.jsonl"))
    failed = 0
    for arm in arms:
        if options.costs and arm.name == FULL:
            continue
        with _alone(options.lock), _claimed(out / f"{'cost_' if options.costs else ''}{arm.folder}.claim") as mine:
            if not mine or arm.name in results.finished():
                continue
            line = measure_costs(arm, out) if options.costs else run_arm(arm, out, options.steps)
            results.put(line)
        failed += "error" in line
        print(f"{arm.name}: {line.get('error') or 'done'} ({line['seconds']:.0f} s)", flush=True)
    return int(failed > 0)


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Holds a lock file, if given, so that other heavy work waits (like flock(1))."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process may run an arm: no other process is running it, whatever lock that holds."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.strategies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, results.jsonl and costs.jsonl")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="only these, in this order; full comes first")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps (default: 60)")
    parser.add_argument("--costs", action="store_true", help="step time and memory instead of what was learned")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there")
    parser.add_argument("--reread", action="store_true", help="make results.jsonl anew from the run directories")
    parser.add_argument("--lock", type=Path, help="lock file to hold while an arm runs, released between arms")
    return parser


if __name__ == "__main__":
    sys.exit(main())

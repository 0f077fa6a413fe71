"""Does TextBudget hold its budget on text that it never saw, and at what price in speech?

    python -m benchmarks.text_budget --out outputs/text_budget --seeds 0 1 2 3 4
    python -m benchmarks.text_budget --out outputs/text_budget --table

An arm is `textkeep fit --config configs/quickstart.yaml` with full fine-tuning at a rate that loses text, in its own
child process: with distillation on plain-text/rehearsal whose weight follows a budget, and a rollback at the end; and,
for the seeds of --frontier, free, with distillation at a fixed weight, and free with only the rollback. The budget is
watched on passages of plain-text/probe; results are measured on plain-text/evaluation. Arms already in rows.jsonl are
skipped, so the command continues where it was interrupted. A row is written as its arm ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from textkeep.foundation.run_names import budget_key
from textkeep.runs import Run

from .arms import HELD_OUT, REMEDY, WATCHED, Arm, arms, settings
from .table import table

ROOT = Path(__file__).resolve().parents[2]
ROWS = "rows.jsonl"


def run_arm(arm: Arm, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains an arm and reads its results; with ``error`` if it failed."""
    folder = out / arm.name
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    config = out / f"{arm.name}.yaml"
    config.write_text(yaml.safe_dump(settings(arm, options), sort_keys=False), encoding="utf-8")
    words = ["fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--config", str(config)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    with (out / f"{arm.name}.log").open("w") as log:
        command = [sys.executable, "-m", "textkeep.cli.main", *words, "--trainer.default_root_dir", str(folder)]
        done = subprocess.run(command, cwd=out, env=environment, stdout=log, stderr=subprocess.STDOUT)
    row: dict[str, Any] = {"arm": arm.name, "kind": arm.kind, "seed": arm.seed, "weight": arm.weight}
    row |= {"budget": arm.budget, "steps": options.steps, "lr": options.lr}
    row |= {"seconds": round(time.perf_counter() - started)}
    if done.returncode:
        return row | {"error": f"exit code {done.returncode}: {out / arm.name}.log"}
    return row | read_run(folder)


def read_run(folder: Path) -> dict[str, Any]:
    """Reads the outcome of a run: the increases and the speech scores, each with its interval."""
    run = Run.open(folder)
    metrics, scored = run.metrics, run.evaluations["val"]
    found: dict[str, Any] = {}
    for text in (WATCHED, HELD_OUT):
        found[text] = [metrics.last(budget_key(text, name)) for name in ("increase", "low", "high")]
    for place, name in (("speech_accuracy", "speech_accuracy"), ("speech_loss", "speech_answer_loss")):
        found[place] = scored.value(scored.last, name)
    ended = {"last_weight": f"weight_{REMEDY}", "alpha": "alpha"}
    return found | {place: metrics.last(budget_key(WATCHED, name)) for place, name in ended.items()}


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Reads the rows so far; the last one of an arm that was rerun."""
    path = out / ROWS
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return list({row["arm"]: row for row in rows}.values())


def main() -> int:
    """Runs the command; 1 if an arm failed."""
    options = _parser().parse_args()
    out: Path = options.out.resolve()
    if options.table:
        print(table(read_rows(out)))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    for arm in arms(options):
        if any(row["arm"] == arm.name and "error" not in row for row in read_rows(out)):
            continue
        row = run_arm(arm, out, options)
        with (out / ROWS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        failed |= "error" in row
        print(json.dumps(row), flush=True)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.text_budget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the benchmark")
    parser.add_argument("--table", action="store_true", help="print the rows so far, and what they say")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the arms with a budget")
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.02], help="nats a token")
    parser.add_argument("--frontier", type=int, nargs="*", default=[0], help="seeds of the arms they are held against")
    parser.add_argument("--weights", type=float, nargs="*", default=[0.5, 5.0], help="fixed ones of the frontier")
    parser.add_argument("--start", type=float, default=3.0, help="weight with which the controlled arms begin")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps")
    parser.add_argument("--every", type=int, default=4, help="steps between two measurements")
    parser.add_argument("--lr", type=float, default=3e-4, help="learning rate")
    parser.add_argument("--tokens", type=int, default=192, help="positions of a batch")
    parser.add_argument("--passages", type=int, default=24, help="of the text that is watched")
    parser.add_argument("--heldout", type=int, default=50, help="passages of the text that is read at the end")
    parser.add_argument("--beside", type=int, default=2, help="passages of distillation beside each batch")
    parser.add_argument("--cut", type=int, default=64, help="tokens of a passage")
    parser.add_argument("--questions", type=int, default=40, help="of validation")
    return parser


if __name__ == "__main__":
    sys.exit(main())

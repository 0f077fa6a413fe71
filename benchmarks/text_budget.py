"""Does TextBudget hold its budget on text that it never saw, and where does it stand against fixed weights?

    python -m benchmarks.text_budget --out outputs/text_budget --seeds 0 1 2 3 4
    python -m benchmarks.text_budget --out outputs/text_budget --table

An arm is `textkeep fit --config configs/quickstart.yaml` with full fine-tuning at a rate that loses text, in a child
process of its own: without a remedy, with L2-SP of a fixed weight, or with its weight controlled to a budget. All
measure passages of plain-text/probe, by which the budget is controlled, and at the end passages of
plain-text/evaluation. Arms that are in rows.jsonl already are skipped: the command goes on where it was broken off. A
row is written as its arm ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from textkeep.foundation.run_names import budget_key, cross_entropy, stage_key
from textkeep.runs import Run

ROOT = Path(__file__).resolve().parents[1]
PROBE, HELD_OUT = "watched", "heldout"
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Arm:
    """One row: a seed and what is done for the text.

    Attributes:
        seed: Of the run and of the order of its data.
        weight: Of L2-SP, at the start where it is controlled; None leaves it out.
        budget: Nats a token; None controls nothing.
    """

    seed: int
    weight: float | None = None
    budget: float | None = None

    @property
    def name(self) -> str:
        """Of its folder and its row."""
        kind = "free" if self.weight is None else f"fixed={self.weight:g}"
        return f"{kind if self.budget is None else f'control={self.budget:g}'}_seed={self.seed}"


def arms(options: argparse.Namespace) -> list[Arm]:
    """Gives the arms, the seeds in the outer order: what is broken off has whole seeds."""
    found = []
    for seed in options.seeds:
        found += [Arm(seed, options.start, budget) for budget in options.budgets]
        found += [Arm(seed), *(Arm(seed, weight) for weight in options.weights)]
    return found


def settings(arm: Arm, options: argparse.Namespace) -> dict[str, Any]:
    """Gives what differs from the quickstart.

    Args:
        arm: Which.
        options: Of the command.
    """
    text = {"modality": "text", "tokens": options.cut}
    control = {"class_path": "ControlWeight", "init_args": {"of": "l2sp"}}
    allowed = arm.budget or 1.0  # of those that only measure, nothing depends on it
    watched = {"max_increase": allowed, "every_n_steps": options.every, "actions": [control] if arm.budget else []}
    seen_once = {"max_increase": allowed, "every_n_steps": options.steps}
    objectives: list[dict[str, Any]] = [{"class_path": "AnswerCrossEntropy"}]
    if arm.weight is not None:
        objectives.append({"class_path": "L2SP", "init_args": {"weight": arm.weight}})
    return {
        "seed_everything": arm.seed,
        "trainer": {
            "max_steps": options.steps,
            "val_check_interval": options.steps,
            "logger": {"class_path": "RunCSVLogger"},
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "TextBudget", "init_args": {"text": PROBE, **watched}},
                {"class_path": "TextBudget", "init_args": {"text": HELD_OUT, **seen_once}},
            ],
        },
        "model": {
            "objectives": objectives,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": options.lr, "weight_decay": 0.0}},
        },
        "data": {
            "seed": arm.seed,
            "eval_limit": options.questions,
            "tokens_per_batch": options.tokens,
            "probes": {
                PROBE: {**text, "source": "plain-text/probe", "examples": options.passages},
                HELD_OUT: {**text, "source": "plain-text/evaluation", "examples": options.heldout},
            },
        },
    }


def run_arm(arm: Arm, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains an arm and reads what it left; with ``error`` if it failed."""
    folder = out / arm.name
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was broken off
    config = out / f"{arm.name}.yaml"
    config.write_text(yaml.safe_dump(settings(arm, options), sort_keys=False), encoding="utf-8")
    words = ["fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--config", str(config)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    with (out / f"{arm.name}.log").open("w") as log:
        command = [sys.executable, "-m", "textkeep.cli.main", *words, "--trainer.default_root_dir", str(folder)]
        done = subprocess.run(command, cwd=out, env=environment, stdout=log, stderr=subprocess.STDOUT)
    row: dict[str, Any] = {"arm": arm.name, "seed": arm.seed, "weight": arm.weight, "budget": arm.budget}
    row |= {"steps": options.steps, "lr": options.lr, "seconds": round(time.perf_counter() - started)}
    if done.returncode:
        return row | {"error": f"exit code {done.returncode}: {out / arm.name}.log"}
    return row | read_run(folder)


def read_run(folder: Path) -> dict[str, Any]:
    """Reads the increases at the end, the loss on spoken questions, and the last weight."""
    metrics = Run.open(folder).metrics
    found: dict[str, Any] = {"speech_loss": metrics.last(stage_key("val", cross_entropy("speech")))}
    for place, text in (("probe", PROBE), ("heldout", HELD_OUT)):
        keys = [budget_key(text, name) for name in ("increase", "low", "high")]
        found[place] = [metrics.last(key) for key in keys]
    return found | {"last_weight": metrics.last(budget_key(PROBE, "weight_l2sp"))}


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Reads the rows so far."""
    path = out / ROWS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Draws the rows as a table of Markdown, kinds of arms together; increases in nats a token with 95 % intervals."""
    lines = [
        "| arm | seed | increase on the probe | on held-out text | inside | speech loss | weight at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(
        (row for row in rows if "error" not in row), key=lambda row: (row["arm"].split("_")[0], row["seed"])
    ):
        cells = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[place]) for place in ("probe", "heldout")]
        weight = row["last_weight"] if row["last_weight"] is not None else row["weight"]
        shown = "-" if weight is None else f"{weight:.3g}"
        kind = row["arm"].split("_")[0]
        lines.append(
            f"| {kind} | {row['seed']} | {' | '.join(cells)} | {_inside(row)} | {row['speech_loss']:.3f} | {shown} |"
        )
    return "\n".join(lines)


def _inside(row: dict[str, Any]) -> str:
    """Says whether the budget holds on held-out text: by the estimate, within the interval, or not."""
    if row["budget"] is None:
        return "-"
    estimate, low, _ = row["heldout"]
    return "yes" if estimate <= row["budget"] else "within the interval" if low <= row["budget"] else "no"


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the benchmark")
    parser.add_argument("--table", action="store_true", help="print the rows so far")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.02, 0.05], help="of the controlled arms")
    parser.add_argument("--weights", type=float, nargs="*", default=[0.1, 1.0, 10.0], help="of the fixed arms")
    parser.add_argument("--start", type=float, default=1.0, help="weight with which the controlled arms begin")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps")
    parser.add_argument("--every", type=int, default=5, help="steps between two measurements")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate")
    parser.add_argument("--tokens", type=int, default=256, help="positions of a batch")
    parser.add_argument("--passages", type=int, default=24, help="of the text that is watched")
    parser.add_argument("--heldout", type=int, default=48, help="passages of the text that is read at the end")
    parser.add_argument("--cut", type=int, default=128, help="tokens of a passage")
    parser.add_argument("--questions", type=int, default=40, help="of validation")
    return parser


if __name__ == "__main__":
    sys.exit(main())

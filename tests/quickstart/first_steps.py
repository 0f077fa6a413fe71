"""The first steps of the real quickstart, and the command that records what they gave.

    python -m tests.quickstart.first_steps

runs ``textkeep fit`` on ``configs/quickstart.yaml`` for some steps, without the callbacks that answer questions, and
writes what each step gave to ``recorded.json``. Length, rate and probes are :data:`RECIPE`'s: at a low rate other kinds
of CPU and other splits of a batch stay together, so that what parts them is the code. Record anew only after a change
that is meant to move it, and say so in the commit. Needs the assets of ``textkeep assets``, about 5 GiB, some minutes.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.support.processes import child_environment, command

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("recorded.json")
RECIPE = {
    "trainer": {"max_steps": 60},
    "model": {"optimizer": {"init_args": {"lr": 5e-5}}},
    "data": {
        "probes": {
            "indomain_text": {"source": "spoken-facts/train", "modality": "text", "examples": 16},
            "heldout_text": {"source": "spoken-facts/general", "modality": "text", "examples": 16},
            "speech": {"source": "spoken-facts/validation", "modality": "speech", "examples": 16},
        }
    },
}
"""What of the quickstart's settings is fixed here, so that a recipe may change without a new recording."""
STEPS = 10


@dataclass
class Trajectory:
    """What the first steps of a run gave."""

    steps: list[dict[str, float]]
    """Number, loss, answer tokens and gradient norm of each optimizer step."""
    js: dict[str, dict[str, dict[str, float]]]
    """Probe -> estimator -> step -> Jensen-Shannon distance to the importance before the first step."""


def first_steps(folder: Path, stop_at: int = STEPS, halves: bool = False, *words: str) -> Trajectory:
    """Trains the quickstart's first steps in a real ``textkeep fit``.

    Args:
        folder: Gets the run directory and the records; a second call with the same folder adds to them.
        stop_at: Optimizer step after which the run ends.
        halves: Cuts each batch in two (see ``StepRecorder``).
        *words: More options of ``textkeep fit``.

    Returns:
        All that has been recorded in ``folder``.
    """
    records, run = folder / "steps.jsonl", folder / "run"
    callbacks: list[dict[str, Any]] = [
        {
            "class_path": "ImportanceTracker",
            "init_args": {
                "every_n_steps": STEPS,
                "at_checkpoints": False,
                "at_end": False,
                "replicates": 0,  # intervals of the shift, which cost time and move nothing
                "max_heat_maps": 0,
            },
        },
        {
            "class_path": "tests.quickstart.step_recorder.StepRecorder",
            "init_args": {"path": str(records), "stop_at": stop_at, "halves": halves},
        },
    ]
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    settings = ["fit", "--config", ROOT / "configs/quickstart.yaml", "--config", recipe]
    settings += ["--trainer.default_root_dir", run]
    settings += ["--trainer.log_every_n_steps", 1, "--trainer.logger", "false", "--trainer.limit_val_batches", 0]
    settings += ["--trainer.callbacks", json.dumps(callbacks), *words]
    environment = child_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(command(*settings), env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"textkeep fit ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    lines = [json.loads(line) for line in (run / "importance/summary.jsonl").read_text().splitlines()]
    js: dict[str, dict[str, dict[str, float]]] = {}
    for line in lines:
        if line["step"]:
            of_probe = js.setdefault(line["probe"], {}).setdefault(line["estimator"], {})
            of_probe[str(line["step"])] = line["shift"]["metrics"]["js"]["value"]
    return Trajectory([json.loads(line) for line in records.read_text().splitlines()], js)


def record() -> int:
    """Writes ``recorded.json``."""
    with tempfile.TemporaryDirectory() as folder:
        trajectory = first_steps(Path(folder), STEPS, False, "--trainer.enable_checkpointing", "false")
    made = {"torch": version("torch"), "transformers": version("transformers"), "machine": platform.machine()}
    RECORDED.write_text(json.dumps({"made_with": made, **asdict(trajectory)}, indent=1) + "\n")
    print(f"{RECORDED.relative_to(ROOT)}: {len(trajectory.steps)} steps")
    return 0


if __name__ == "__main__":
    sys.exit(record())

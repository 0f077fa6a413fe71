"""Stands for ``textkeep`` in tests of the study runner: trains nothing, but saves, fails and stops as it does."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.study_children import waited

verb, *words = sys.argv[1:]
options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
run = Path(options["trainer.default_root_dir"])
stopping: list[int] = []


def wait_in(phase: str, wanted: str) -> None:
    """Waits to be stopped, once a run, if it is to do so in this phase."""
    mark = waited(run)
    if wanted not in (phase, "for ever") or mark.exists():
        return
    mark.write_text(str(os.getpid()))
    end = time.monotonic() + 120
    while (wanted == "for ever" or not stopping) and time.monotonic() < end:
        time.sleep(0.02)


def test() -> None:
    if (run / "config.yaml").is_file():
        wait_in("test", (run / "config.yaml").read_text().rpartition("waits: ")[2].strip("}\n"))
    folder = run if (run / "config.yaml").is_file() else run.with_name(f"{run.name}-test")
    right = (run / "checkpoints" / "step=000004.ckpt").is_file()
    records = [
        {"id": f"q{i}", "modality": m, "prediction": "x", "correct": i % 3 > 0 if m == "text" else right and i % 2 > 0}
        for i in range(12)
        for m in ("speech", "text")
    ]
    (folder / "evaluation" / "test").mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "evaluation" / "test" / "step=000004.jsonl").write_text(lines)


def fit() -> None:
    if options.get("model.broken") == "true":
        print("textkeep: error: model.broken: true; allowed: false", file=sys.stderr)
        sys.exit(2)
    run.mkdir(parents=True, exist_ok=True)
    if any(run.iterdir()) and "last" not in words:
        sys.exit(f"{run} holds something")
    (run / "config.yaml").write_text(f"trainer: {{max_steps: 4, waits: {options.get('waits')}}}\n")
    seen = sorted(name for name in os.environ if name.startswith("SLURM_"))
    (run / "environment.txt").write_text(" ".join(seen))
    done = max((int(p.stem[5:]) for p in (run / "checkpoints").glob("*.ckpt")), default=0)
    (run / "checkpoints").mkdir(exist_ok=True)
    lines = ["step,val/speech_accuracy\n"]

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    for step in range(done + 1, 5):
        time.sleep(float(options.get("seconds", "0")))
        if step == 2:
            wait_in("fit", options.get("waits", ""))
        lines.append(f"{step},{options.get('model.lr', '0')}\n")
        (run / "metrics.csv").write_text("".join(lines))
        (run / "starts.txt").open("a").write(f"{step}\n")
        if stopping:
            (run / "checkpoints" / f"step={step:06d}.ckpt").touch()
            sys.exit(128 + stopping[0])
    (run / "checkpoints" / "step=000004.ckpt").touch()


{"fit": fit, "test": test}[verb]()

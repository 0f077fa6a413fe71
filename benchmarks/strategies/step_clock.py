"""What a training step costs: processor time and memory of this process."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepClock(Callback):
    """Times optimizer steps in processor time (all threads), which a busy machine disturbs less than wall time.

    Args:
        path: JSON file written when training ends: medians, peak memory, and how many parameters train.
        group: Steps after which it prints a line of JSON and waits for a line on standard input before it continues;
            the end of the input ends the fit. ``None`` does not wait.
    """

    def __init__(self, path: str, group: int | None = None) -> None:
        self.path = Path(path)
        self.group = group
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.peak = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Waits, if configured to, and starts the clock."""
        if self.group and len(self.cpu) % self.group == 0:
            self._report(trainer)
        if not self.cpu or self.group:
            reset_peak()
        self._started = time.process_time(), time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock."""
        self.cpu.append(time.process_time() - self._started[0])
        self.wall.append(time.perf_counter() - self._started[1])
        self.peak = max(self.peak, peak_mib())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        trainable = {id(p): p.numel() for p in pl_module.parameters() if p.requires_grad}
        in_llm = {id(p): p.numel() for p in pl_module.llm.parameters() if p.requires_grad}
        values = {
            "steps": len(self.cpu),
            "cpu_per_step": statistics.median(self.cpu),
            "wall_per_step": statistics.median(self.wall),
            "peak_mib": self.peak,
            "trainable": sum(trainable.values()),
            "trainable_llm": sum(in_llm.values()),
        }
        self.path.write_text(json.dumps(values), encoding="utf-8")

    def _report(self, trainer: Trainer) -> None:
        done = {"cpu": self.cpu[-self.group :] if self.group else [], "peak_mib": self.peak}
        print(f"\nCLOCK {json.dumps(done)}", flush=True)
        self.peak = 0.0
        if not sys.stdin.readline():
            trainer.should_stop = True


def reset_peak() -> None:
    """Resets Linux's peak of the resident memory."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak of the resident memory since :func:`reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

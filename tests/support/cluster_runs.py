"""Runs on a cluster: their job scripts, and how they are held against one that nobody disturbed."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.soak.tiny_run import write_tiny_run

from .house import ROOT
from .slurm_cluster import Cluster, Job
from .stopped_runs import differences, fit

BIN = Path(sys.executable).parent
TWO_NODES = "--trainer.devices 1 --trainer.num_nodes 2"
"""What a config for two processes on one machine needs on two machines."""
HEAD = f"""#SBATCH --requeue --open-mode=append --output=slurm-%j.out
export PATH={BIN}:$PATH PYTHONPATH={ROOT} PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
export WANDB_MODE=offline
"""
"""Of every job script."""
SLOW = {"train": 0.05, "validate": 0.15, "importance": 0.15, "items": 0.15}
"""Seconds that a run waits in the places where tests want to signal it."""
SAVED = re.compile(r"saved \S*step=(\d+)\.ckpt")


def write_job(folder: Path, lines: str, options: str = "--nodes=2 --ntasks-per-node=1", name: str = "job.sh") -> Path:
    """Writes a job script that has ``textkeep`` on its path; the job is requeued and its log appended to.

    Args:
        folder: Where.
        lines: What it does.
        options: Of sbatch.
        name: Of the file.
    """
    path = folder / name
    path.write_text(f"#!/bin/bash\n#SBATCH {options}\n{HEAD}{lines}\n")
    return path


@dataclass(frozen=True)
class TinyRun:
    """A run of a tiny model, to be sent to a cluster again and again; it says where it is, and is slow there.

    Attributes:
        folder: Of models, data, config and runs.
        config: The config.
        processes: Ranks: two are one on each of two nodes.
    """

    folder: Path
    config: Path
    processes: int

    @classmethod
    def write(cls, folder: Path, steps: int, processes: int) -> TinyRun:
        """Writes models, data and config into a folder."""
        config = write_tiny_run(folder, steps, processes=processes)
        settings = yaml.safe_load(config.read_text())
        marks = {"class_path": "tests.support.marks.Marks", "init_args": {"slow": SLOW}}
        settings["trainer"]["callbacks"].append(marks)
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        return cls(folder, config, processes)

    @property
    def whole(self) -> Path:
        """Directory of the undisturbed run."""
        return self.folder / "runs" / "whole"

    def leave_alone(self) -> None:
        """Trains the undisturbed run, on this machine and without SLURM."""
        words = ("fit", "--config", self.config, "--trainer.default_root_dir", self.whole)
        fit(words, self.folder / "whole", self.processes)

    def fit(self, run: str, *more: str) -> str:
        """Gives the command that trains into ``runs/<run>``."""
        several = TWO_NODES if self.processes == 2 else ""
        directory = self.folder / "runs" / run
        return f"textkeep fit --config {self.config} --trainer.default_root_dir {directory} {several} {' '.join(more)}"

    def send(self, cluster: Cluster, name: str, *more: str, options: str = "", before: str = "") -> Job:
        """Sends a job that trains into ``runs/<name>``.

        Args:
            cluster: Where to.
            name: Of the run and the script.
            more: Words for ``textkeep fit``.
            options: Of sbatch.
            before: Lines of the script before the training.
        """
        line = f"{before}\nsrun --kill-on-bad-exit=1 {self.fit(name, *more)}"
        options = f"--nodes={self.processes} --ntasks-per-node=1 {options}"
        return cluster.sbatch(write_job(self.folder, line, options, f"{name}.sh"))

    def differences(self, name: str, log: str = "") -> list[str]:
        """Tells in what ``runs/<name>`` differs from the undisturbed run.

        Args:
            name: Of the run.
            log: Of its job: at the steps where a stop has saved, importance was measured too.
        """
        other = self.folder / "runs" / name
        found = differences(self.whole, other, [int(step) for step in SAVED.findall(log)])
        files = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (self.whole, other)]
        more = [] if files[0] == files[1] else [f"checkpoints: {files[1]}, not {files[0]}"]
        twins = [f"another directory: {path.name}" for path in other.parent.glob(f"{name}-*")]
        return [*found, *more, *twins]

"""Runs on a cluster: their settings and job scripts, and what an interrupted one has in common with a whole one."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from .house import ROOT

BIN = Path(sys.executable).parent
PHASES = "tests.support.phase_log.PhaseLog"
STEPS = 20
"""Of a run; every fifth is validated, measured and saved."""


def write_config(folder: Path, settings: dict[str, Any], run: str = "runs/t", **trainer: Any) -> Path:
    """Writes ``run.yaml``: two modalities, importance, retention, checkpoints and validations, each fifth step.

    Args:
        folder: For the file and, below it, the run.
        settings: The fixture ``tiny_settings``.
        run: The run directory.
        trainer: Settings of the trainer that differ.
    """
    every = {"every_n_train_steps": 5, "save_top_k": 1}
    callbacks = [
        {"class_path": "ImportanceTracker", "init_args": {"estimators": ["taylor"]}},
        {"class_path": "Retention", "init_args": {"max_new_tokens": 8}},
        {"class_path": "RunCheckpoint", "init_args": every},
        {"class_path": PHASES},
    ]
    own = {"default_root_dir": run, "max_steps": STEPS, "val_check_interval": 5, "check_val_every_n_epoch": None}
    manifest = settings["data"]["val"][0]
    data = {"train_modalities": "both", "tokens_per_batch": 128, "num_workers": 0}
    probes = {"text": {"source": manifest, "modality": "text", "examples": 6}}
    whole = {
        **settings,
        "seed_everything": 0,
        "trainer": {**settings["trainer"], **own, "callbacks": callbacks, **trainer},
        "data": {**settings["data"], **data, "probes": probes},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def write_job(folder: Path, lines: str, options: str = "--nodes=2 --ntasks-per-node=1", name: str = "job.sh") -> Path:
    """Writes a job script that has ``textkeep`` on its path.

    Args:
        folder: Where.
        lines: What it does.
        options: Of sbatch; a job is requeued and its log appended to in any case.
        name: Of the file.
    """
    head = f"#!/bin/bash\n#SBATCH {options} --requeue --open-mode=append --output=slurm-%j.out\n"
    path = folder / name
    path.write_text(f"{head}export PATH={BIN}:$PATH PYTHONPATH={ROOT}\n{lines}\n")
    return path


def rows(run: Path, without: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """Lists the numbers of a run in order, as (step, metric, value); times and ``without`` are left out."""
    found = []
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            step = row["step"]
            for name, value in row.items():
                timed = any(word in name for word in ("seconds", "per_second", "time"))
                if value and name not in ("step", "epoch", *without) and not timed:
                    found.append((step, name, value))
    return found


def checkpoint(run: Path) -> dict[str, Any]:
    """Loads the newest checkpoint of a run."""
    return torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=False)


def answers(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the records of a run's evaluations: file -> lines."""
    files = sorted((run / "evaluation").rglob("*.jsonl"))
    return {str(f.relative_to(run)): [json.loads(line) for line in f.read_text().splitlines()] for f in files}


def snapshots(run: Path) -> dict[str, bytes]:
    """Reads the scores of importance of a run: folder -> bytes."""
    return {str(p.parent.relative_to(run)): p.read_bytes() for p in sorted(run.glob("importance/**/stats.safetensors"))}


def differences(run: Path, whole: Path) -> list[str]:
    """Tells in what a run that was interrupted differs from one that was not; nothing, if it was exact.

    Weights, the optimizer's state, each number of ``metrics.csv`` and its place, records of evaluations, snapshots of
    importance and the checkpoints that are kept are compared bit by bit.
    """
    found = []
    one, two = sorted(rows(run)), sorted(rows(whole))
    if one != two:
        lost, more = [row for row in two if row not in one], [row for row in one if row not in two]
        found.append(f"metrics.csv: {len(one)} values for {len(two)}; lost {lost[:6]}, more {more[:6]}")
    states = checkpoint(run), checkpoint(whole)
    if states[0]["global_step"] != states[1]["global_step"]:
        found.append(f"steps: {states[0]['global_step']} for {states[1]['global_step']}")
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        if not same(states[0][part], states[1][part]):
            found.append(part)
    if answers(run) != answers(whole):
        found.append(f"evaluation: {list(answers(run))} for {list(answers(whole))}, or what they say")
    if snapshots(run) != snapshots(whole):
        found.append(f"importance: {list(snapshots(run))} for {list(snapshots(whole))}, or what they say")
    files = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (run, whole)]
    if files[0] != files[1]:
        found.append(f"checkpoints: {files[0]} for {files[1]}")
    return found


def same(one: Any, two: Any) -> bool:
    """Tells whether two states are the same, tensor by tensor."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)

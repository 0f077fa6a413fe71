"""Run directories with plausible content, written with the code that writes real ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from textkeep.evaluation import Prediction, mean_interval, qa_match, store_evaluation
from textkeep.importance import Matrix, Snapshot, compare
from textkeep.importance.paired_losses import loss_changes
from textkeep.importance.summary import SummaryFile, summary_line

KINDS = ("q", "k", "v", "o", "gate", "up", "down")
CAPITALS = ["Paris", "Rome", "Madrid", "Oslo", "Bern", "Vienna", "Athens", "Warsaw", "Lisbon", "Dublin"]


def write_run(
    folder: Path,
    *,
    steps: tuple[int, ...] = (0, 30, 60, 90, 120),
    items: int = 100,
    layers: int = 30,
    harm: float = 0.6,
    seed: int = 0,
    parts: tuple[str, ...] = ("config", "metrics", "importance", "evaluation"),
) -> Path:
    """A run directory.

    Args:
        folder: Made.
        steps: Of the measurements.
        items: Questions.
        layers: Of the LLM.
        harm: How much text is lost by the end, 0 to 1.
        seed: Of everything random.
        parts: What of a run exists.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        "config": lambda: _config(folder, seed, steps[-1]),
        "metrics": lambda: _metrics(folder, steps[-1], seed),
        "importance": lambda: _importance(folder / "importance", steps, layers, harm, seed),
        "evaluation": lambda: _evaluation(folder / "evaluation", steps, items, harm, seed),
    }
    for part in parts:
        writers[part]()
    return folder


def write_removal(run: Path) -> dict[str, float]:
    """A removal test beside a run's snapshots; returns the increases of the loss that it tells."""
    increases = {"none": 0.0, "top": 3.0, "random": 0.5, "bottom": 0.01}
    common = {"data": "text", "perplexity": 9.0, "loss": 2.0}
    rows = [
        {**common, "removed": removed, "increase": up, "low": up - 0.1, "high": up + 0.2}
        for removed, up in increases.items()
    ]
    test = {"rows": rows, "estimator": "taylor", "fraction": 0.03, "scope": "matrix", "ordered": {"text": True}}
    (run / "importance/removal.json").write_text(json.dumps(test))
    return increases


def _config(folder: Path, seed: int, last: int) -> None:
    config = {
        "seed_everything": seed,
        "trainer": {"max_steps": last, "precision": "32-true", "default_root_dir": str(folder.name)},
        "model": {"llm": "asset:smollm2-135m-instruct", "optimizer": {"init_args": {"lr": 1e-4 * (1 + seed)}}},
        "data": {"train": "spoken-facts/train", "val": "spoken-facts/validation", "tokens_per_batch": 2048},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _metrics(folder: Path, last: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "epoch", "train/loss", "val/speech_ce", "val/text_ce"])
        writer.writeheader()
        for step in range(1, last + 1):
            decay = np.exp(-step / 40)
            writer.writerow({"step": step, "epoch": 0, "train/loss": 1.6 + 2.6 * decay + 0.15 * rng.standard_normal()})
            if step % 30 == 0:
                writer.writerow({"step": step, "val/speech_ce": 2 + 2 * decay, "val/text_ce": 1.9 + 0.4 * decay})


def _evaluation(folder: Path, steps: tuple[int, ...], items: int, harm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    easy, hard = rng.random((2, items))
    noise = 0.4 * rng.standard_normal(items)
    for step in steps:
        progress = step / max(steps[-1], 1)
        records = []
        for i in range(items):
            answers = (CAPITALS[i % len(CAPITALS)],)
            for modality in ("speech", "text"):
                listens = progress if modality == "speech" else 1.0
                right = easy[i] < 0.35 * listens * (1 - 0.3 * harm * progress) + 0.04 * (hard[i] < 0.3)
                said = answers[0] if right else CAPITALS[(i + 3) % len(CAPITALS)]
                response = f"The capital is {said}." if step else f"{said} is the capital of land <{i}> & more."
                loss = (4.2 - 2.0 * progress if modality == "speech" else 2.4 + 0.5 * harm * progress) + noise[i]
                gap = 0.9 * progress + 0.2 * rng.standard_normal() if modality == "speech" else None
                records.append(
                    Prediction(
                        id=f"q{i:03d}",
                        modality=modality,
                        question=f"What is the capital of land <{i}>?",
                        answers=answers,
                        prediction=response,
                        correct=qa_match(response, answers),
                        loss=float(loss),
                        tokens=3 + i % 4,
                        shuffled_loss=None if gap is None else float(loss + gap),
                        source="spoken-facts",
                        category="capitals",
                    )
                )
        store_evaluation(folder, "val", step, records, seconds=12.5)


def _importance(folder: Path, steps: tuple[int, ...], layers: int, harm: float, seed: int) -> None:
    table = [Matrix(f"model.layers.{i}.{kind}", (8, 8), i, kind) for i in range(layers) for kind in KINDS]
    depth = np.repeat(np.linspace(0, 1, layers), len(KINDS))
    lines: list[dict[str, Any]] = []
    for number, probe in enumerate(("indomain_text", "heldout_text", "speech")):
        reference = None
        for step in steps:
            progress = step / max(steps[-1], 1)
            centre = 0.72 - 0.25 * harm * progress
            profile = (0.3 + np.exp(-((depth - centre) ** 2) / 0.03)) * (1 - 0.35 * harm * progress)
            snapshot = made_snapshot(table, profile, step, probe, layers, seed + number)
            reference = reference or snapshot
            changes = loss_changes(reference, snapshot)
            common = {"plain": False} | ({"loss_change": list(mean_interval(changes.tolist()))} if step else {})
            snapshot.save(folder / probe / f"step={step:06d}")
            for estimator in snapshot.examples:
                shift = compare(reference, snapshot, estimator, replicates=100, draws=199)
                lines.append(summary_line(snapshot, estimator, shift) | common)
    SummaryFile(folder / "summary.jsonl").write(lines)


def made_snapshot(
    table: list[Matrix], profile: np.ndarray, step: int, probe: str, layers: int, seed: int, examples: int = 32
) -> Snapshot:
    """A measurement whose examples are the same at every step, up to ``profile`` (matrices of the table)."""
    rng = np.random.default_rng(seed)
    spread = rng.lognormal(0.0, 0.5, (examples, len(table)))
    losses = 2.4 + 0.3 * rng.standard_normal(examples) + 0.002 * step
    sums = [rng.lognormal(0.0, 1.0, 8) for _ in table]
    estimators = {"taylor": profile * spread, "fisher": profile**2 * spread**2}
    return Snapshot(
        table=table,
        examples=estimators,
        totals={},
        rows=dict.fromkeys(estimators, sums),
        columns={name: [each**2 for each in sums] for name in estimators},
        heads=[np.zeros(0)] * len(table),
        losses=losses,
        tokens=np.full(examples, 4),
        meta={
            "step": step,
            "name": probe,
            "seconds": 4.2,
            "layers": layers,
            "model": {"class": "LlamaForCausalLM", "parameters": 134_515_008, "dtype": "torch.float32"},
            "estimators": list(estimators),
            "options": {},
            "probe": {
                "fingerprint": probe,
                "ids": [str(i) for i in range(examples)],
                "examples": examples,
                "tokens": 128,
            },
            "coverage": 0.79,
            "untapped": {"model.layers.0.mlp.experts.down_proj": "fused experts, shape (4, 8, 8)"},
            "masking": "",
            "normalisation": "",
            "heads": [],
            "versions": {"torch": "2.14.1", "numpy": "2.4.6"},
        },
    )

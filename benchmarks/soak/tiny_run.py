"""A tiny run that does in a minute all that a long one does: it trains, saves, validates, measures and evaluates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from textkeep.foundation.files import write_json

from ..tiny_models import write_tiny_llm, write_tiny_whisper

EXAMPLES = {"train": 26, "val": 5}
ESTIMATORS = ["taylor", "fisher"]


def write_tiny_run(folder: Path, steps: int, workers: int = 0, processes: int = 1, asked: bool = False) -> Path:
    """Writes models, questions and the config of a run.

    An epoch has an odd number of batches, so that accumulation windows of two are cut short, and a mid-epoch validation
    falls into a window. Checkpoints come every five steps, evaluations every four.

    Args:
        folder: Where to.
        steps: Optimizer steps.
        workers: Processes that read, per rank.
        processes: Ranks of DDP.
        asked: Whether the run will be asked to stop. It then saves a checkpoint, which must not be measured: the
            undisturbed run has none at that step.

    Returns:
        The config; its run directory is to be named on the command line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    llm, whisper = write_tiny_llm(folder / "llm"), write_tiny_whisper(folder / "whisper")
    _set_dropout(llm / "config.json")
    sources = {split: str(_write_questions(folder, split, count)) for split, count in EXAMPLES.items()}
    prose = folder / "prose.txt"
    prose.write_text("The capital of France is Paris.\n\nThe user asks the assistant.\n", encoding="utf-8")
    config = {
        "seed_everything": 0,
        "trainer": _trainer(steps, processes, prose, asked),
        "model": {
            "llm": str(llm),
            "encoder": {"class_path": "WhisperEncoder", "init_args": {"source": str(whisper)}},
            "adaptor": {"class_path": "ConcatMLP", "init_args": {"stack": 5, "hidden": 32}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
            "max_new_tokens": 4,
        },
        "data": {
            **sources,
            "test": sources["val"],
            "train_modalities": "both",
            "tokens_per_batch": 240,
            "num_workers": workers,
            "noise_snr_db": [10.0, 20.0],
            "probes": {"text": {"source": sources["val"], "modality": "text", "examples": 4}},
        },
    }
    path = folder / "soak.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def _set_dropout(path: Path) -> None:
    """Makes the LLM draw random numbers in training."""
    write_json({**json.loads(path.read_text(encoding="utf-8")), "attention_dropout": 0.1}, path)


def _trainer(steps: int, processes: int, prose: Path, asked: bool) -> dict[str, Any]:
    suite = {"prose": {"class_path": "PlainTextLoss", "init_args": {"source": str(prose)}}}
    tracker: dict[str, Any] = {"estimators": ESTIMATORS, "replicates": 20, "max_heat_maps": 0}
    if asked:
        tracker |= {"at_checkpoints": False, "every_n_steps": 5}
    callbacks = [
        {"class_path": "benchmarks.soak.timeline.Timeline"},
        {"class_path": "ImportanceTracker", "init_args": tracker},
        {"class_path": "Retention"},
        {"class_path": "EvaluationSuite", "init_args": {"evaluations": suite, "every_n_steps": 4}},
        {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 5}},
    ]
    return {
        "accelerator": "cpu",
        "devices": processes,
        "strategy": "ddp" if processes > 1 else "auto",
        "precision": "32-true",
        "max_steps": steps,
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 1.0,
        "val_check_interval": 0.5,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "logger": {"class_path": "RunCSVLogger"},
        "callbacks": callbacks,
    }


def _write_questions(folder: Path, split: str, count: int) -> Path:
    """Writes clips of noise and their manifest."""
    noise = np.random.default_rng(len(split))
    (folder / split).mkdir(exist_ok=True)
    lines = []
    for number in range(count):
        clip = folder / split / f"{number}.wav"
        soundfile.write(clip, 0.05 * noise.standard_normal(6000 + 800 * (number % 6)), 16000)
        record = {"id": f"{split}{number}", "audio": str(clip), "answers": [f"Town {number}"]}
        lines.append({**record, "question": f"What is the capital of country {number}?"})
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path

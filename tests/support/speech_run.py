"""A small real run: spoken questions on disk, a tiny SpeechLLM, a data module, a trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from textkeep.datamodules import SpeechTextData
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder


def write_manifest(folder: Path, name: str, items: int, seed: int = 0) -> Path:
    """Questions with noise for clips, of different lengths; the last line has no clip."""
    rng = np.random.default_rng(seed)
    lines = []
    for index in range(items):
        seconds = 0.3 + 0.1 * (index % 5)
        clip = folder / "clips" / f"{name}-{index}.wav"
        clip.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(clip, 0.1 * rng.standard_normal(int(16000 * seconds)), 16000)
        lines.append(
            {
                "id": f"{name}-{index}",
                "question": f"What is number {index}?",
                "answers": [f"number {index}", str(index)],
                "audio": f"clips/{clip.name}",
                "seconds": seconds,
                "category": "count",
            }
        )
    lines.append({"id": f"{name}-text", "question": "Only written?", "answers": ["yes"]})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_model(llm: Path, whisper: Path, dropout: float = 0.2, **options: Any) -> SpeechLLM:
    """A tiny SpeechLLM with dropout, so that a disturbed random state shows."""
    torch.manual_seed(0)
    settings = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.5), "max_new_tokens": 4, **options}
    model = SpeechLLM(
        llm=str(llm), encoder=WhisperEncoder(str(whisper)), adaptor=ConcatMLP(stack=5, hidden=16), **settings
    )
    model.configure_model()
    for layer in model.llm.model.layers:
        layer.self_attn.attention_dropout = dropout
    return model


def make_data(folder: Path, **options: Any) -> SpeechTextData:
    """Training, validation and test questions under ``folder``."""
    paths = {split: write_manifest(folder, split, count) for split, count in (("train", 8), ("val", 7), ("test", 5))}
    sources = {split: str(path) for split, path in paths.items()}
    return SpeechTextData(**sources, train_modalities="both", tokens_per_batch=160, **options)  # type: ignore[arg-type]


def make_trainer(run: Path, callbacks: list[Any], **options: Any) -> Trainer:
    """Two epochs on the CPU, validated after each."""
    seed_everything(3)
    settings: dict[str, Any] = {
        "default_root_dir": str(run),
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": CSVLogger(str(run), name="", version=""),
        "callbacks": callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "log_every_n_steps": 1,
    }
    return Trainer(**{**settings, **options})


class Losses(Callback):
    """Notes every loss, and saves in the middle of an epoch."""

    def __init__(self, saved: Path | None, at: int) -> None:
        self.values: list[float] = []
        self.saved, self.at = saved, at

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(float(outputs["loss"]))
        if self.saved and trainer.global_step == self.at:
            trainer.save_checkpoint(self.saved)

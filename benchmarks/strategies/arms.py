"""The arms: full fine-tuning, and one for each overlay of configs/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
BASE = CONFIGS / "quickstart.yaml"
FOLDERS = ("tuning", "objectives", "hybrids")
FULL = "full"

#: Overlays that are not separate arms here, and why.
LEFT_OUT = {"tuning/full": "the arm `full`", "tuning/qlora": "needs a GPU"}

#: Arms whose untouched LLM has other layers than full tuning's, so they measure it themselves.
OWN_START = {"tuning/depth_upscaling"}


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: ``full``, or folder and name of the overlay.
        overlays: Config files over the quickstart.
    """

    name: str
    overlays: tuple[Path, ...] = ()

    @property
    def measures_start(self) -> bool:
        """Whether it measures the untouched LLM."""
        return self.name == FULL or self.name in OWN_START

    @property
    def folder(self) -> str:
        """Name of its run directory."""
        return self.name.replace("/", "_")


def find_arms() -> list[Arm]:
    """Full fine-tuning first: the others are compared with it, and it measures the untouched model."""
    found = [Arm(FULL)]
    for folder in FOLDERS:
        for path in sorted((CONFIGS / folder).glob("*.yaml")):
            name = f"{folder}/{path.stem}"
            if name not in LEFT_OUT:
                found.append(Arm(name, (path,)))
    return found


def conditions(out: Path, steps: int, at_start: bool, callbacks: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all arms share, on top of the quickstart.

    Args:
        out: Folder of the benchmark; holds the cache of the frozen encoder's outputs.
        steps: Optimizer steps.
        at_start: Measure the untouched model too.
        callbacks: Those of the benchmark itself.
    """
    importance = {
        "probes": ["indomain_text", "heldout_text"],
        "estimators": ["taylor"],
        "at_start": at_start,
        "replicates": 0,  # the table computes its own intervals
    }
    measuring = [
        {"class_path": "ImportanceTracker", "init_args": importance},
        {"class_path": "Retention", "init_args": {"max_new_tokens": 20, "at_start": at_start}},
        {"class_path": "Divergence", "init_args": {"at_start": at_start}},
    ]
    return {
        "trainer": {
            "max_steps": steps,
            "val_check_interval": steps,
            "enable_checkpointing": False,
            "logger": {"class_path": "RunCSVLogger"},
            "callbacks": [*measuring, *callbacks],
        },
        "model": {"optimizer": {"init_args": {"lr": 5e-5}}},  # an overlay may bring its own
        "data": {
            "tokens_per_batch": 256,
            "eval_limit": 24,
            "feature_cache": str(out / "features"),
            "probes": {
                "indomain_text": {"source": "spoken-facts/train", "modality": "text", "examples": 16},
                "heldout_text": {"source": "spoken-facts/general", "modality": "text", "examples": 16},
            },
        },
    }


def write_conditions(path: Path, values: dict[str, Any]) -> Path:
    """Writes them as a config file."""
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path

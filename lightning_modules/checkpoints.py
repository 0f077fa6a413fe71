"""Finding a run's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def find_checkpoint(run_or_checkpoint: str | Path) -> Path:
    """A checkpoint file: the given one, or a run directory's last.

    Args:
        run_or_checkpoint: A ``.ckpt`` file, or a directory that ``textkeep fit`` made.

    Raises:
        FileNotFoundError: If there is neither; the message says what was looked for.
    """
    path = Path(run_or_checkpoint)
    if path.is_file():
        return path
    folder = path / "checkpoints"
    last = folder / "last.ckpt"
    if last.is_file():
        return last
    found = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{path} is neither a checkpoint nor a run directory (no {folder / '*.ckpt'})")
    return found[-1]


def read_settings(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its run, without its weights: ``step`` and the model's arguments as ``model``."""
    found = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    settings = {key: value for key, value in found["hyper_parameters"].items() if not key.startswith("_")}
    return {"step": int(found["global_step"]), "model": settings}

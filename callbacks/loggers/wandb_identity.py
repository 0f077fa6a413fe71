"""The id of a W&B run, kept in the run directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ...foundation.files import replacing
from ...foundation.run_names import WANDB_RUN


def saved_id(folder: Path) -> str | None:
    """Reads the id of the run that this directory already holds; a damaged record is reported and left behind."""
    path = folder / WANDB_RUN
    if not path.is_file():
        return None
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))["id"]
    except (ValueError, KeyError, TypeError):  # not UTF-8 or no JSON, no id in it, no object
        identity = None
    if isinstance(identity, str) and identity:
        return identity
    rank_zero_warn(f"{path} is damaged: W&B gets a new run instead of more of the old one")
    return None


def keep_id(folder: Path, run: Any, project: str | None) -> None:
    """Writes the run's id beside the run, whole or not at all; a run that goes nowhere has none to keep."""
    if run.disabled:
        return
    record = {"id": run.id, "project": project, "name": run.name}
    with replacing(folder / WANDB_RUN) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

"""What tests of the study runner share: a grid, the stand-in for textkeep, and what became of the runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("study_child.py")

GRID = {"grid": {"model.lr": [0.1, 0.3, 0.2]}}


def waited(run: Path) -> Path:
    """File that a run of ``study_child.py`` leaves beside its arm's folder when it begins to wait to be stopped."""
    return run.parent.with_name(f"waited.{run.parent.name}.{run.name}")


def states(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of a job -> its state on disk."""
    return {path.stem: json.loads(path.read_text()) for path in (folder / "state").glob("*.json")}


def wait_for(condition: Any, seconds: float = 120) -> None:
    """Until it holds; an error after this time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

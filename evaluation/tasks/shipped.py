"""Data of the tasks beside this file, for lm-eval's ``custom_dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# lm-eval runs this file by its path, outside of any package.
from textkeep.foundation.json_lines import json_objects

FOLDER = Path(__file__).resolve().parents[2] / "datamodules" / "spoken_facts"


def general_choices(**_: Any) -> dict[str, Any]:
    """The multiple choice questions of general knowledge as a split ``test``."""
    import datasets

    rows = [row for _, row in json_objects(FOLDER / "choices.jsonl")]
    return {"test": datasets.Dataset.from_list(rows)}

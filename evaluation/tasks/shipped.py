"""Data of the tasks beside this file, for lm-eval's ``custom_dataset``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "datamodules" / "spoken_facts"


def general_choices(**_: Any) -> dict[str, Any]:
    """The multiple choice questions of general knowledge as a split ``test``."""
    import datasets

    lines = (FOLDER / "choices.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}

"""Data for the tasks beside this file, for lm-eval's ``custom_dataset``."""

from __future__ import annotations

from typing import Any

# lm-eval runs this file by its path, outside any package.
from textkeep.foundation.assets import embedded_split
from textkeep.foundation.json_lines import json_objects


def general_choices(**_: Any) -> dict[str, Any]:
    """Returns the multiple choice questions of general knowledge as a split ``test``."""
    import datasets

    rows = [row for _, row in json_objects(embedded_split("spoken-facts/choices"))]
    return {"test": datasets.Dataset.from_list(rows)}

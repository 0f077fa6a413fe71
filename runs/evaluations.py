"""The answers that a run gave: one summary per step, and the records behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation import Prediction, read_predictions
from ..evaluation.retention import accuracy_changes, paired
from ..foundation.run_names import records_name, stage_key, step_of

_FROM_RECORDS = ("_accuracy_change", "_accuracy_kept")

Summary = dict[str, Any]
"""A line of the summary: ``step``, ``items``, the metrics by their keys and, by the same keys, ``intervals``."""


@dataclass
class Evaluation:
    """The evaluations of one set of questions, by step.

    Attributes:
        stage: ``val`` or ``test``, the prefix of the metric keys.
        folder: Contains the records.
        rows: One summary per step, in order.
    """

    stage: str
    folder: Path
    rows: list[Summary] = field(default_factory=list)
    _pairs: dict[int, dict[str, list[tuple[Prediction, Prediction]]]] = field(default_factory=dict)

    @property
    def first(self) -> Summary:
        """The earliest summary; the untouched model's if its step is 0."""
        return self.rows[0]

    @property
    def last(self) -> Summary:
        """The latest summary."""
        return self.rows[-1]

    @property
    def steps(self) -> list[int]:
        """The steps that have records, with or without a summary."""
        found = (step_of(path.name) for path in self.folder.glob("step=*.jsonl"))
        return sorted(step for step in found if step is not None)

    def has(self, name: str) -> bool:
        """Returns whether the latest evaluation has a metric."""
        return self.last.get(stage_key(self.stage, name)) is not None

    def value(self, row: Summary, name: str) -> tuple[float, float, float] | None:
        """Returns a metric of a row with its limits; unknown limits are infinite.

        The change of an accuracy is computed from the records if they exist: earlier versions wrote bootstrap limits
        into the summary, which collapse if no answer flipped.
        """
        modality = name.partition("_")[0]
        if name.endswith(_FROM_RECORDS) and (found := accuracy_changes(modality, self.pairs(row, modality)).get(name)):
            return found
        key = stage_key(self.stage, name)
        if row.get(key) is None:
            return None
        low, high = row.get("intervals", {}).get(key) or (None, None)
        return (
            float(row[key]),
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        )

    def pairs(self, row: Summary, modality: str) -> list[tuple[Prediction, Prediction]]:
        """Pairs the records of the first row and of this one by question; the first row itself has none."""
        step = row["step"]
        if step not in self._pairs:
            first = self.first["step"]
            before = {(r.id, r.modality): r for r in self.predictions(first)} if step != first else {}
            self._pairs[step] = {
                name: [(before[key], r) for r in records if (key := (r.id, name)) in before]
                for name, records in (paired(self.predictions(step)) if before else {}).items()
            }
        return self._pairs[step].get(modality, [])

    def series(self, name: str) -> list[tuple[int, float, float, float]]:
        """Returns (step, value, low, high) of a metric at all steps that have it."""
        return [(row["step"], *found) for row in self.rows if (found := self.value(row, name)) is not None]

    def predictions(self, step: int) -> list[Prediction]:
        """Reads all records of a step; none if the file is gone.

        Raises:
            ValueError: If a line is not such a record, with file and line.
        """
        path = self.folder / records_name(step)
        return read_predictions(path) if path.is_file() else []

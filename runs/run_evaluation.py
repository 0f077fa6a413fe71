"""The evaluations of one split of a run, read for a report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation import Prediction, read_predictions
from ..evaluation.retention import accuracy_changes, paired

_FROM_RECORDS = ("_accuracy_change", "_accuracy_kept")


@dataclass
class Evaluation:
    """The evaluations of one split.

    Attributes:
        stage: ``val`` or ``test``, the prefix of the metric keys.
        folder: Holds the records.
        rows: One summary a step, in order of steps.
    """

    stage: str
    folder: Path
    rows: list[dict[str, Any]]
    _pairs: dict[int, dict[str, list[tuple[Prediction, Prediction]]]] = field(default_factory=dict)

    @property
    def first(self) -> dict[str, Any]:
        """The earliest summary: the untouched model's where its step is 0."""
        return self.rows[0]

    @property
    def last(self) -> dict[str, Any]:
        """The latest summary."""
        return self.rows[-1]

    def has(self, name: str) -> bool:
        """Whether the latest evaluation has a metric."""
        return self.last.get(f"{self.stage}/{name}") is not None

    def value(self, row: dict[str, Any], name: str) -> tuple[float, float, float] | None:
        """A metric of a row with its limits; limits that are not known are infinite.

        What became of an accuracy comes from the records where they are there: earlier versions wrote limits of a
        bootstrap into the summary, which collapse where no answer flipped.
        """
        modality = name.partition("_")[0]
        if name.endswith(_FROM_RECORDS) and (found := accuracy_changes(modality, self.pairs(row, modality)).get(name)):
            return found
        key = f"{self.stage}/{name}"
        if row.get(key) is None:
            return None
        low, high = row.get("intervals", {}).get(key) or (None, None)
        return (
            float(row[key]),
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        )

    def pairs(self, row: dict[str, Any], modality: str) -> list[tuple[Prediction, Prediction]]:
        """Records of the first row and of this one, of the questions that both have; none of the first row itself."""
        step = row["step"]
        if step not in self._pairs:
            before = {(r.id, r.modality): r for r in self.predictions(self.first)} if row is not self.first else {}
            self._pairs[step] = {
                name: [(before[key], r) for r in records if (key := (r.id, name)) in before]
                for name, records in (paired(self.predictions(row)) if before else {}).items()
            }
        return self._pairs[step].get(modality, [])

    def series(self, name: str) -> list[tuple[int, float, float, float]]:
        """(step, value, low, high) of a metric at all steps that have it."""
        return [(row["step"], *found) for row in self.rows if (found := self.value(row, name)) is not None]

    def predictions(self, row: dict[str, Any]) -> list[Prediction]:
        """All records of a row's step; none if the file is gone."""
        path = self.folder / f"step={row['step']:06d}.jsonl"
        return read_predictions(path) if path.is_file() else []

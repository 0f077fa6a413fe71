"""What a run directory says right now; files are read on from where the last look ended."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...foundation.errors import UserError

PARTS = ("config.yaml", "metrics.csv", "importance", "evaluation")
SILENCE = 120.0
"""Seconds without a written number, at least, after which a run is called quiet; three times its pace if longer."""


@dataclass
class MetricsTail:
    """``metrics.csv``, read as it grows. A new column rewrites the file: then it is read from the start.

    Attributes:
        path: The file.
        values: Metric -> [(step, value)].
        step: The last step in it.
    """

    path: Path
    values: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    step: int = 0
    _inode: int = 0
    _offset: int = 0
    _header: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Takes in the lines that were added. One that is still being written waits for the next look."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            if (inode := self.path.stat().st_ino) != self._inode:
                self._inode, self._offset, self._header, self.values = inode, 0, [], {}
            file.seek(self._offset)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._offset += len(whole)
        for cells in csv.reader(io.StringIO(whole.decode("utf-8", "replace"))):
            if not self._header:
                self._header = cells
                continue
            self._take(dict(zip(self._header, cells, strict=False)))

    def _take(self, row: dict[str, str]) -> None:
        try:
            step = int(float(row["step"]))
            numbers = {key: float(text) for key, text in row.items() if text and key not in ("step", "epoch")}
        except (KeyError, ValueError):  # a damaged line
            return
        self.step = max(self.step, step)
        for key, value in numbers.items():
            self.values.setdefault(key, []).append((step, value))


class RunView:
    """A run as far as its directory tells.

    Args:
        path: The run directory.

    Raises:
        UserError: If it is none.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            kind = "is a file, not a run directory" if path.exists() else "does not exist"
            raise UserError(f"{path} {kind}; allowed: the directory of a run (runs/<name>)")
        if not any((path / part).exists() for part in PARTS):
            raise UserError(f"{path} is not a run directory: it holds none of {', '.join(PARTS)}")
        self.path = path
        self.name = path.resolve().name
        self.metrics = MetricsTail(path / "metrics.csv")
        self.importance: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.planned: int | None = None
        self._observed: list[tuple[float, int]] = []
        self._read_config()

    def refresh(self) -> None:
        """Looks at the files again."""
        self.metrics.read()
        self.importance = [line for line in _lines(self.path / "importance/summary.jsonl") if _is_measurement(line)]
        self.evaluations = [row for row in _lines(self.path / "evaluation/summary.jsonl") if _is_scored(row)]
        if not self._observed or self._observed[-1][1] != self.step:
            self._observed = [*self._observed[-200:], (self.changed, self.step)]

    @property
    def step(self) -> int:
        """The last step of which anything is known."""
        steps = [self.metrics.step, *(line["step"] for line in (*self.importance, *self.evaluations))]
        return max(steps)

    @property
    def estimators(self) -> list[str]:
        """Estimators, in the order in which they were written."""
        return list(dict.fromkeys(line["estimator"] for line in self.importance))

    @property
    def changed(self) -> float:
        """When a number was last written, seconds since the epoch."""
        files = [self.path / name for name in ("metrics.csv", "importance/summary.jsonl", "evaluation/summary.jsonl")]
        times = [file.stat().st_mtime for file in files if file.is_file()]
        return max(times, default=(self.path.stat().st_mtime))

    @property
    def pace(self) -> float | None:
        """Seconds a step, over what was seen so far; before that, over the time since the config was written."""
        (then, first), (now, last) = self._observed[0], self._observed[-1]
        config = self.path / "config.yaml"
        if last == first and config.is_file():
            then, first = config.stat().st_mtime, 0
        return (now - then) / (last - first) if last > first and now > then else None

    @property
    def state(self) -> str:
        """``finished``, ``running`` or ``quiet``: a directory cannot tell a stopped run from a slow one."""
        if self.planned and self.step >= self.planned:
            return "finished"
        return "running" if time.time() - self.changed < max(SILENCE, 3 * (self.pace or 0)) else "quiet"

    @property
    def remaining(self) -> float | None:
        """Seconds to the planned end."""
        if not self.planned or self.pace is None or self.step >= self.planned:
            return None
        return self.pace * (self.planned - self.step)

    def profile(self, probe: str, estimator: str) -> list[dict[str, Any]]:
        """Measurements of a probe by an estimator, by step."""
        found = [line for line in self.importance if (line["probe"], line["estimator"]) == (probe, estimator)]
        return sorted(found, key=lambda line: line["step"])

    def _read_config(self) -> None:
        try:
            config = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
            steps = config["trainer"]["max_steps"]
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return
        self.planned = steps if isinstance(steps, int) and steps > 0 else None


def _is_measurement(line: dict[str, Any]) -> bool:
    """Whether a line of importance has what is drawn; a damaged one does not."""
    named = isinstance(line.get("probe"), str) and isinstance(line.get("estimator"), str)
    return named and isinstance(line.get("shares"), dict)


def _is_scored(row: dict[str, Any]) -> bool:
    """Whether the figures of an evaluation are numbers."""
    values = [value for key, value in row.items() if key.startswith("val/")]
    return all(value is None or isinstance(value, int | float) for value in values)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole JSON objects of a file; a line that is being written, or was cut off, is left out."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found

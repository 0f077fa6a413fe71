"""The reader of run directories: the only place that knows which file holds what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..foundation.errors import UserError
from ..foundation.run_names import (
    CONFIG,
    EVALUATION,
    METRICS,
    PARTS,
    SUMMARY,
    TEST,
    WEIGHT_CHANGE,
    checkpoints,
    evaluation_folder,
    stage_key,
)
from .belonging import finished_step
from .evaluations import Evaluation
from .importance_records import SUMMARY_FILE, ImportanceRecords
from .metrics import Metrics
from .notes import Notes

STAGES = ("val", "test")

_MEANING = {
    CONFIG: "the configuration cannot be shown",
    METRICS: "training curves cannot be shown (the run has not logged yet, or without RunCSVLogger)",
    SUMMARY_FILE: "importance was not measured (callback ImportanceTracker)",
    f"{EVALUATION}/{SUMMARY}": "text and speech were not scored (callback Retention)",
}
_WRITTEN = (METRICS, SUMMARY_FILE, f"{EVALUATION}/{SUMMARY}", f"{EVALUATION}/{TEST}/{SUMMARY}")


class Run:
    """A run directory. Each part is read on first use; anything missing or damaged becomes a note.

    Example:
        ::

            from textkeep.runs import Run

            run = Run.open("outputs/quickstart")
            run.config["trainer"]["max_steps"]
            run.metrics["train/loss"][-1]  # (step, value)
            run.importance.of("heldout_text", "taylor")[-1]["shift"]
            run.importance.snapshot("heldout_text", 0).shares("taylor")
            run.evaluations["val"].series("text_accuracy")  # (step, value, low, high)
            run.checkpoints[0]  # the newest
            run.notes  # what is missing or damaged, in words

    Attributes:
        path: The directory.
        name: Its displayed name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self._notes = Notes()

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Opens a run directory.

        Args:
            folder: The directory.

        Raises:
            UserError: If there is no such directory, or it contains no part of a run.
        """
        path = Path(folder)
        if not path.is_dir():
            kind = "is a file, not a run directory" if path.exists() else "does not exist"
            raise UserError(f"{path} {kind}; allowed: the directory of a run (outputs/<name>)")
        if not holds_part(path):
            raise UserError(f"{path} is not a run directory: it holds none of {', '.join(PARTS)}")
        return cls(path)

    def __repr__(self) -> str:
        """Says in one line how far it got and what it contains."""
        planned = f" of {self.planned_steps}" if self.planned_steps else ""
        parts = [
            f"{len(self.metrics)} metrics",
            f"importance of {len(dict(self.importance.pairs))} probes",
            f"{len(self.checkpoints)} checkpoints",
        ]
        return f"<{self.path}: step {self.last_step}{planned}; {', '.join(parts)}>"

    def refresh(self) -> None:
        """Reads what a live run has written since then: new metrics are added, the rest is read again."""
        self._read_metrics(self.metrics)
        for part in ("config_text", "config", "importance", "evaluations"):
            self.__dict__.pop(part, None)

    @cached_property
    def config_text(self) -> str:
        """The text of its configuration, empty if there is none."""
        with self._notes.reading(CONFIG):
            return (self.path / CONFIG).read_text(encoding="utf-8") if (self.path / CONFIG).exists() else ""
        return ""

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its configuration, empty if there is none."""
        text = self.config_text
        if not text:
            return {}
        with self._notes.reading(CONFIG):
            config = yaml.safe_load(text)
            if not isinstance(config, dict):
                raise ValueError("a YAML mapping is expected")
            for part in ("trainer", "model", "data"):
                if not isinstance(config.get(part) or {}, dict):
                    raise ValueError(f"{part}: a mapping is expected")
            return config
        return {}

    @cached_property
    def metrics(self) -> Metrics:
        """What was logged: name -> [(step, value)]."""
        metrics = Metrics(self.path / METRICS)
        self._read_metrics(metrics)
        return metrics

    @cached_property
    def importance(self) -> ImportanceRecords:
        """Its measurements of importance."""
        return ImportanceRecords(self.path, self._notes)

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """Stage (``val``, ``test``) -> the evaluations of the paired questions; stages without a summary have none."""
        found = {stage: self.evaluation(stage) for stage in STAGES}
        return {stage: evaluation for stage, evaluation in found.items() if evaluation.rows}

    def evaluation(self, stage: str, name: str = "") -> Evaluation:
        """Returns the evaluations of one set of questions.

        Args:
            stage: ``val`` or ``test``.
            name: Of a further set (:meth:`sets`); by default the paired questions of the data module.
        """
        folder = evaluation_folder(self.path, stage, name)
        prefix = stage_key(stage, "")

        def check(row: dict[str, Any]) -> object:
            values = [float(value) for key, value in row.items() if key.startswith(prefix) and value is not None]
            return int(row["step"]), values

        rows: list[dict[str, Any]] = []
        if (folder / SUMMARY).exists():
            rows = self._notes.rows(self.path, (folder / SUMMARY).relative_to(self.path).as_posix(), check)
        return Evaluation(stage, folder, sorted(rows, key=lambda row: int(row["step"])))

    def sets(self, stage: str) -> list[str]:
        """Lists the names of the further sets of questions that have a folder at a stage."""
        folders = evaluation_folder(self.path, stage).glob("*/")
        return sorted(path.name for path in folders if path.is_dir() and path.name != TEST)

    @cached_property
    def weight_change(self) -> dict[str, Any] | None:
        """What the callback WeightChange wrote; None if it was not used."""
        file = self.path / WEIGHT_CHANGE
        with self._notes.reading(WEIGHT_CHANGE):
            found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
            if found is not None:
                _ = list(found["matrices"]), dict(found["overlap"])
            return found
        return None

    @property
    def checkpoints(self) -> list[Path]:
        """Its checkpoints, newest first."""
        return checkpoints(self.path)

    @property
    def notes(self) -> list[str]:
        """What is missing or could not be read; finding out reads everything."""
        _ = self.config, self.metrics, self.importance, self.evaluations, self.weight_change
        _ = self.importance.meta, self.importance.verifications, self.importance.removals
        absent = [f"{name} is missing: {what}" for name, what in _MEANING.items() if not (self.path / name).exists()]
        return [*absent, *self._notes]

    @property
    def last_step(self) -> int:
        """The last known step: the end of a finished run, otherwise the last logged or measured one."""
        scored = [row["step"] for found in self.evaluations.values() for row in found.rows]
        return max([self.metrics.last_step, *self.importance.steps, *scored, finished_step(self.path) or 0])

    @property
    def planned_steps(self) -> int | None:
        """Steps that the configuration asks for, if stated directly."""
        steps = (self.config.get("trainer") or {}).get("max_steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    @property
    def changed(self) -> datetime:
        """When a number was last written, UTC; for a run without any, when its directory last changed."""
        times = [(self.path / name).stat().st_mtime for name in _WRITTEN if (self.path / name).is_file()]
        return datetime.fromtimestamp(max(times, default=self.path.stat().st_mtime), UTC)

    def _read_metrics(self, metrics: Metrics) -> None:
        with self._notes.reading(METRICS):
            metrics.read()
        if metrics.damaged:
            self._notes.put(METRICS, f": {metrics.damaged} damaged lines were left out")


def holds_part(folder: Path) -> bool:
    """Returns whether a folder contains any part of a run."""
    return any((folder / part).exists() for part in PARTS)


def open_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Opens several runs and gives each a unique name.

    Raises:
        UserError: If one of them is not a run directory.
    """
    runs = [Run.open(folder) for folder in folders]
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = f"{run.path.resolve().parent.name}/{run.path.resolve().name}"
    names = [run.name for run in runs]
    for number, run in enumerate(runs, start=1):
        if names.count(run.name) > 1:  # the same directory twice
            run.name = f"{run.name} ({number})"
    return runs

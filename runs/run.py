"""What a run directory holds, read for a report; what is missing or damaged becomes a note."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..evaluation import read_lines
from ..foundation.errors import UserError
from .run_evaluation import Evaluation

if TYPE_CHECKING:
    from ..importance import Snapshot

PARTS = ("config.yaml", "metrics.csv", "importance", "evaluation")


@dataclass
class RunData:
    """A run directory.

    Attributes:
        path: The directory.
        name: Shown for it.
        config: Parsed ``config.yaml``, empty if there is none.
        config_text: Its text.
        metrics: Metric name -> [(step, value)].
        importance: Lines of ``importance/summary.jsonl``.
        verifications: Records of ``textkeep importance verify``, newest last.
        evaluations: Split -> evaluations; only splits with at least one.
        removals: Name of a removal test -> its JSON (``importance/removal*.json``).
        meta: ``meta.json`` of the latest importance snapshot, empty if there is none.
        notes: What is missing or could not be read.
        changed: When anything in it was last written, UTC.
    """

    path: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    importance: list[dict[str, Any]] = field(default_factory=list)
    verifications: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    removals: dict[str, dict[str, Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    changed: datetime | None = None
    _snapshots: dict[Path, Snapshot | None] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path) -> RunData:
        """Reads a run directory; damaged parts are left out and noted.

        Raises:
            UserError: If there is no such directory, or it holds no part of a run.
        """
        if not path.is_dir():
            kind = "is a file, not a run directory" if path.exists() else "does not exist"
            raise UserError(f"{path} {kind}; allowed: the directory of a run (runs/<name>)")
        found = [part for part in PARTS if (path / part).exists()]
        if not found:
            raise UserError(f"{path} is not a run directory: it holds none of {', '.join(PARTS)}")
        run = cls(path, path.resolve().name)
        times = [(path / part).stat().st_mtime for part in found]
        run.changed = datetime.fromtimestamp(max(times), UTC)
        run._read("config.yaml", run._read_config)
        run._read("metrics.csv", run._read_metrics)
        run._read("importance/summary.jsonl", run._read_importance)
        for file in sorted((path / "importance/verification").glob("*.json"), key=lambda file: file.stat().st_mtime):
            run._read(f"importance/verification/{file.name}", run._read_verification)
        run._read("evaluation/summary.jsonl", lambda file: run._read_evaluation(file, "val"))
        if (path / "evaluation/test/summary.jsonl").exists():
            run._read("evaluation/test/summary.jsonl", lambda file: run._read_evaluation(file, "test"))
        for file in sorted((path / "importance").glob("removal*.json")):
            run._read(f"importance/{file.name}", run._read_removal)
        return run

    def snapshot(self, probe: str, step: int) -> Snapshot | None:
        """A snapshot of importance, with its row and column sums; None if it is not there (any more)."""
        from ..importance import Snapshot

        folder = self.path / "importance" / probe / f"step={step:06d}"
        if folder not in self._snapshots:
            try:
                self._snapshots[folder] = Snapshot.load(folder)
            except (OSError, ValueError, KeyError):
                self._snapshots[folder] = None
        return self._snapshots[folder]

    @property
    def last_step(self) -> int:
        """The last step of which anything is known."""
        steps = [step for points in self.metrics.values() for step, _ in points]
        steps += [line["step"] for line in self.importance]
        steps += [row["step"] for found in self.evaluations.values() for row in found.rows]
        return max(steps, default=0)

    @property
    def planned_steps(self) -> int | None:
        """Steps the configuration asks for, where it says so directly."""
        steps = (self.config.get("trainer") or {}).get("max_steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    def measured(self) -> list[tuple[str, str]]:
        """(probe, estimator) pairs, in the order in which they were written."""
        return list(dict.fromkeys((line["probe"], line["estimator"]) for line in self.importance))

    def lines(self, probe: str, estimator: str) -> list[dict[str, Any]]:
        """Importance measurements of one pair, by step."""
        chosen = [line for line in self.importance if (line["probe"], line["estimator"]) == (probe, estimator)]
        return sorted(chosen, key=lambda line: line["step"])

    def _read(self, name: str, reader: Callable[[Path], None]) -> None:
        file = self.path / name
        if not file.exists():
            self.notes.append(f"{name} is missing: {_MEANING[name]}")
            return
        try:
            reader(file)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            self.notes.append(f"{name} could not be read ({reason})")

    def _read_config(self, file: Path) -> None:
        self.config_text = file.read_text(encoding="utf-8")
        config = yaml.safe_load(self.config_text)
        if not isinstance(config, dict):
            raise ValueError("a YAML mapping is expected")
        for part in ("trainer", "model", "data"):
            if not isinstance(config.get(part) or {}, dict):
                raise ValueError(f"{part}: a mapping is expected")
        self.config = config

    def _read_metrics(self, file: Path) -> None:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if not row.get("step"):
                    continue
                step = int(float(row["step"]))
                for key, text in row.items():
                    if key and key != "step" and isinstance(text, str) and text:
                        self.metrics.setdefault(key, []).append((step, float(text)))

    def _read_importance(self, file: Path) -> None:
        lines = [row for _, row in read_lines(file)]
        for line in lines:
            # What the figures rely on: a damaged line is reported now, not in the middle of a drawing.
            _ = int(line["step"]), line["probe"], line["estimator"], float(line["total"]), dict(line["shares"])
        self.importance = lines
        metas = sorted(file.parent.glob("*/step=*/meta.json"), key=lambda path: path.stat().st_mtime)
        if metas:
            self.meta = json.loads(metas[-1].read_text(encoding="utf-8"))

    def _read_verification(self, file: Path) -> None:
        record = json.loads(file.read_text(encoding="utf-8"))
        scores = {result["score"] for result in record["results"]}
        if not {"random", "magnitude"} <= scores or not record["groups"] or not record["granularity"]:
            raise ValueError("it is no record of `textkeep importance verify`")
        self.verifications.append(record)

    def _read_removal(self, file: Path) -> None:
        test = json.loads(file.read_text(encoding="utf-8"))
        for row in test["rows"]:
            _ = row["removed"], row["data"], float(row["increase"]), row["low"], row["high"], row["perplexity"]
        name = f"{100 * test['fraction']:.3g} % of the weights off, by {test['estimator']}, chosen per {test['scope']}"
        self.removals[name if name not in self.removals else f"{name} ({file.stem})"] = test

    def _read_evaluation(self, file: Path, stage: str) -> None:
        rows = sorted((row for _, row in read_lines(file)), key=lambda row: int(row["step"]))
        for row in rows:  # what the figures rely on
            _ = [float(value) for key, value in row.items() if key.startswith(f"{stage}/") and value is not None]
        if rows:
            self.evaluations[stage] = Evaluation(stage, file.parent, rows)


_MEANING = {
    "config.yaml": "the configuration cannot be shown",
    "metrics.csv": "training curves cannot be shown (the run has not logged yet, or without RunCSVLogger)",
    "importance/summary.jsonl": "importance was not measured (callback ImportanceTracker)",
    "evaluation/summary.jsonl": "text and speech were not scored (callback Retention)",
    "evaluation/test/summary.jsonl": "the test questions were not scored (textkeep test)",
}


def load_runs(paths: Sequence[Path]) -> list[RunData]:
    """Reads several runs and gives each a name of its own.

    Raises:
        UserError: If one of them is no run directory.
    """
    runs = [RunData.load(path) for path in paths]
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = f"{run.path.resolve().parent.name}/{run.path.resolve().name}"
    names = [run.name for run in runs]
    for number, run in enumerate(runs, start=1):
        if names.count(run.name) > 1:  # the same directory twice
            run.name = f"{run.name} ({number})"
    return runs

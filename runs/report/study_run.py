"""What one run of a study gave: scores by item, importance at its ends, how far its weights moved."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ...evaluation import Prediction, read_lines, read_predictions
from ...importance import Snapshot
from .paired_p import PairedP, paired_p

MAIN = ""
"""Name of the paired questions of the data module, beside the names of further sets."""

Pair = tuple[str, str]
"""A probe and an estimator."""


@dataclass(frozen=True)
class Measure:
    """A number that every item has.

    Attributes:
        set: :data:`MAIN` or the name of a set of the evaluation suite.
        modality: ``text`` or ``speech``.
        kind: ``accuracy`` or ``loss`` (nats per token, of plain text).
    """

    set: str
    modality: str
    kind: str = "accuracy"

    @property
    def label(self) -> str:
        """T2T and S2T are the paper's names: text or speech in, text out."""
        way = {"text": "T2T", "speech": "S2T"}[self.modality]
        if self.kind == "loss":
            return f"{self.set} loss"
        return f"{self.set} {way}" if self.set else way

    @property
    def scale(self) -> float:
        """Accuracies are shown in percent."""
        return 100.0 if self.kind == "accuracy" else 1.0

    @property
    def unit(self) -> str:
        """Of a difference."""
        return "points" if self.kind == "accuracy" else "nats per token"

    @property
    def better(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.kind == "accuracy" else -1


@dataclass
class RunResult:
    """One finished run.

    Attributes:
        arm: The plan's, whatever the point of its grid.
        variant: Arm and point.
        seed: Of everything random.
        directory: The run's.
        tested: Whether it was scored on the test questions.
        scores: Measure -> item -> score, on the test questions or, without a test, on those of validation. Further sets
            have the same items in both; those that only the fit scored count too.
        first: First importance summary line of each probe and estimator: of the untouched LLM.
        last: Last summary line of each.
        change: What :class:`WeightChange` wrote, if it was there.
        removals: Removal tests.
    """

    arm: str
    variant: str
    seed: int
    directory: Path
    tested: bool = False
    scores: dict[Measure, dict[str, float]] = field(default_factory=dict)
    first: dict[Pair, dict[str, Any]] = field(default_factory=dict)
    last: dict[Pair, dict[str, Any]] = field(default_factory=dict)
    change: dict[str, Any] | None = None
    removals: list[dict[str, Any]] = field(default_factory=list)

    def shift(self, pair: Pair) -> dict[str, Any] | None:
        """The shift of a probe's importance from the start to the end of the run."""
        found: dict[str, Any] | None = self.last.get(pair, {}).get("shift")
        return found

    def paired_p(self, pair: Pair) -> PairedP | None:
        """Whether the probe's examples moved from the start to the end of the run; None without a test."""
        shift = self.shift(pair)
        if shift is None:
            return None
        steps = self.first[pair]["step"], self.last[pair]["step"]
        before, after = (self.directory / "importance" / pair[0] / f"step={step:06d}" for step in steps)
        return paired_p(shift, pair[1], lambda: (Snapshot.load(before), Snapshot.load(after)))

    def lost(self, measure: Measure, untouched: RunResult) -> float | None:
        """By how much a score is worse than the untouched LLM's on the same items, in the measure's unit."""
        if measure.set == MAIN and self.tested != untouched.tested:
            return None  # other questions, whatever their ids
        ours, before = self.scores.get(measure, {}), untouched.scores.get(measure, {})
        shared = sorted(set(ours) & set(before))
        if not shared:
            return None
        return -measure.better * measure.scale * fmean(ours[item] - before[item] for item in shared)


def read_run(run: RunResult) -> RunResult:
    """Fills in what lies in a run's directory; what is missing stays empty."""
    fitted = run.directory / "evaluation"
    run.tested = (fitted / "test").is_dir()
    main = fitted / "test" if run.tested else fitted
    run.scores = _measured(MAIN, _last_records(main))
    for folder in dict.fromkeys((fitted, main)):
        for place in sorted(path for path in folder.glob("*/") if path.is_dir() and path.name != "test"):
            run.scores |= _measured(place.name, _last_records(place))
    summary = run.directory / "importance" / "summary.jsonl"
    if summary.is_file():
        for line in sorted((row for _, row in read_lines(summary)), key=lambda row: row["step"]):
            pair = line["probe"], line["estimator"]
            run.first.setdefault(pair, line)
            run.last[pair] = line
    changed = run.directory / "weight_change.json"
    if changed.is_file():
        run.change = json.loads(changed.read_text(encoding="utf-8"))
    tests = sorted((run.directory / "importance").glob("removal*.json"))
    run.removals = [json.loads(path.read_text(encoding="utf-8")) for path in tests]
    return run


def _last_records(folder: Path) -> list[Prediction]:
    files = sorted(folder.glob("step=*.jsonl"))
    if not files:
        return []
    try:
        return read_predictions(files[-1])
    except (ValueError, TypeError):  # records of another kind
        return []


def _measured(name: str, records: list[Prediction]) -> dict[Measure, dict[str, float]]:
    found: dict[Measure, dict[str, float]] = {}
    for record in records:
        if record.correct is not None:
            found.setdefault(Measure(name, record.modality), {})[record.id] = float(record.correct)
        elif record.loss is not None and record.prediction is None:
            found.setdefault(Measure(name, record.modality, "loss"), {})[record.id] = record.loss
    return found

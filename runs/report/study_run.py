"""The results of one run of a study: scores by item, importance at start and end, how far its weights moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...evaluation import Prediction
from ...foundation.run_names import evaluation_folder
from ..evaluations import Evaluation
from ..measurements import Measurement, Removal, ShiftRecord
from ..run import Run
from .paired_p import PairedP, paired_p

if TYPE_CHECKING:
    from ...importance import Snapshot

MAIN = ""
"""Name of the paired questions of the data module, beside the names of further sets."""

Pair = tuple[str, str]
"""A probe and an estimator."""


@dataclass(frozen=True)
class Measure:
    """A score that every item has.

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
        arm: Its name in the plan, whatever the point of its grid.
        variant: Arm and point.
        seed: Of everything random.
        run: Its directory.
        tested: Whether it was scored on the test questions.
        scores: Measure -> item -> score, on the test questions or, without a test, on those of validation. Further sets
            have the same items in both; those that only the fit scored count too.
        first: First importance summary line of each probe and estimator: the untouched LLM's.
        last: Last summary line of each.
    """

    arm: str
    variant: str
    seed: int
    run: Run
    tested: bool = False
    scores: dict[Measure, dict[str, float]] = field(default_factory=dict)
    first: dict[Pair, Measurement] = field(default_factory=dict)
    last: dict[Pair, Measurement] = field(default_factory=dict)

    @property
    def change(self) -> dict[str, Any] | None:
        """What the callback WeightChange wrote, if it was used."""
        return self.run.weight_change

    @property
    def removals(self) -> list[Removal]:
        """Its removal tests."""
        return self.run.importance.removals

    def ends(self, pair: Pair) -> tuple[Snapshot | None, Snapshot | None]:
        """Loads the first and the last snapshot of a probe; None for one that is gone."""
        steps = self.first[pair]["step"], self.last[pair]["step"]
        return self.run.importance.snapshot(pair[0], steps[0]), self.run.importance.snapshot(pair[0], steps[1])

    def shift(self, pair: Pair) -> ShiftRecord | None:
        """Returns the shift of a probe's importance from the start to the end of the run."""
        return self.last[pair].get("shift") if pair in self.last else None

    def paired_p(self, pair: Pair) -> PairedP | None:
        """Returns whether the probe's examples moved from the start to the end of the run; None without a test."""
        shift = self.shift(pair)
        if shift is None:
            return None
        return paired_p(shift, pair[1], lambda: self.ends(pair))

    def lost(self, measure: Measure, untouched: RunResult) -> float | None:
        """Returns how much worse a score is than the untouched LLM's on the same items, in the measure's unit."""
        if measure.set == MAIN and self.tested != untouched.tested:
            return None  # other questions, even with the same ids
        ours, before = self.scores.get(measure, {}), untouched.scores.get(measure, {})
        shared = sorted(set(ours) & set(before))
        if not shared:
            return None
        return -measure.better * measure.scale * fmean(ours[item] - before[item] for item in shared)


def read_run(arm: str, variant: str, seed: int, run: Run) -> RunResult:
    """Reads a study run's scores and measurements; missing ones stay empty."""
    tested = evaluation_folder(run.path, "test").is_dir()
    found = RunResult(arm, variant, seed, run, tested)
    main = "test" if tested else "val"
    found.scores = _measured(MAIN, _last_records(run.evaluation(main)))
    for stage in dict.fromkeys(("val", main)):
        for name in run.sets(stage):
            found.scores |= _measured(name, _last_records(run.evaluation(stage, name)))
    for line in run.importance.measurements:
        pair = line["probe"], line["estimator"]
        found.first.setdefault(pair, line)
        found.last[pair] = line
    return found


def _last_records(evaluation: Evaluation) -> list[Prediction]:
    steps = evaluation.steps
    try:
        return evaluation.predictions(steps[-1]) if steps else []
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

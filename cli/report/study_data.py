"""What the runs of a study scored, by arm, item and seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...evaluation import Prediction, read_lines, read_predictions
from ..errors import CommandError
from ..study.jobs import chooses, job_of, points, variant_name
from ..study.selection import scored_points
from ..study.spec import STUDY_FILE, UNTOUCHED, Study, read_study
from ..study.state import StateStore

MAIN = ""
"""Name of the paired questions of the data module, beside the names of further sets."""


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


@dataclass
class ArmResult:
    """What became of one way to train.

    Attributes:
        name: Arm, with the point of its grid where several are shown.
        runs: Seed -> directory of the finished runs; the untouched LLM has one.
        planned: Number of runs that were planned.
        scores: Measure -> for each run item -> score.
        importance: The last line of every probe, estimator and run.
        first_importance: The first lines: of the untouched LLM.
    """

    name: str
    runs: dict[int, Path]
    planned: int
    scores: dict[Measure, list[dict[str, float]]] = field(default_factory=dict)
    importance: list[dict[str, Any]] = field(default_factory=list)
    first_importance: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class StudyData:
    """A study's results.

    Attributes:
        study: Its plan, with the directory that was given.
        arms: In the order of the plan, the untouched LLM first.
        notes: What is missing.
        grids: Arm -> points of its grid with the metric that chose among them, best first.
    """

    study: Study
    arms: list[ArmResult]
    notes: list[str]
    grids: dict[str, list[tuple[dict[str, Any], float]]]

    @property
    def measures(self) -> list[Measure]:
        """Those that any arm has: the paper's two first."""
        found = {measure for arm in self.arms for measure in arm.scores}
        return sorted(found, key=lambda m: (m.set, m.kind, m.modality != "text"))

    def arm(self, name: str) -> ArmResult | None:
        """The arm of this name that has runs."""
        return next((arm for arm in self.arms if arm.name == name and arm.runs), None)


def is_study(path: Path) -> bool:
    """Whether a directory is a study's."""
    return (path / STUDY_FILE).is_file()


def load_study(path: Path) -> StudyData:
    """Reads a study's directory.

    Raises:
        CommandError: If no run is finished.
    """
    study = replace(read_study(path / STUDY_FILE, check_files=False), directory=path)
    store, notes = StateStore(path), list[str]()
    grids: dict[str, list[tuple[dict[str, Any], float]]] = {}
    arms = [ArmResult(UNTOUCHED, {0: path / "runs" / f"{UNTOUCHED}-test"}, 1)] if study.untouched else []
    for arm in study.arms:
        shown = points(arm)
        if chooses(study, arm):
            scored = grids[arm.name] = scored_points(study, arm, store)
            shown = [point for point, _ in scored[:1]]
            if not scored:
                notes.append(f"{arm.name}: no point of its grid is finished")
        for point in shown:
            jobs = [job_of(study, arm, point, seed) for seed in arm.seeds]
            done = {job.seed: job.directory for job in jobs if store.read(job.name).done(job.test)}
            several = len(shown) > 1
            arms.append(ArmResult(variant_name(arm.name, point) if several else arm.name, done, len(jobs)))
    for result in arms:
        result.runs = {seed: run for seed, run in result.runs.items() if run.is_dir()}
        if len(result.runs) < result.planned:
            notes.append(f"{result.name}: {len(result.runs)} of {result.planned} runs are finished")
        for run in result.runs.values():
            _read_run(run, result)
    if not any(arm.scores for arm in arms):
        raise CommandError(f"report: no run of {path} is finished and scored (textkeep study runs them)")
    return StudyData(study, arms, notes, grids)


def _read_run(run: Path, result: ArmResult) -> None:
    """Scores on the test questions, or on those of validation where no test was made; importance."""
    folder = run / "evaluation" / "test"
    folder = folder if folder.is_dir() else run / "evaluation"
    sets = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    for place in (folder, *sets):
        for measure, scores in _measured(MAIN if place == folder else place.name, _last_records(place)).items():
            result.scores.setdefault(measure, []).append(scores)
    summary = run / "importance" / "summary.jsonl"
    if summary.is_file():
        lines = sorted((row for _, row in read_lines(summary)), key=lambda row: row["step"])
        pairs = dict.fromkeys((line["probe"], line["estimator"]) for line in lines)
        for pair in pairs:
            own = [line for line in lines if (line["probe"], line["estimator"]) == pair]
            result.first_importance.append(own[0])
            result.importance.append(own[-1])


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

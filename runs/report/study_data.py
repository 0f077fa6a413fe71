"""What the runs of a study scored, by arm, item and seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...foundation.errors import UserError
from ..measurements import ShiftRecord
from ..run import Run, holds_part
from ..study.archive import planned_jobs
from ..study.jobs import Job, chooses, points, variant_name
from ..study.selection import scored_points
from ..study.spec import STUDY_FILE, UNTOUCHED, Arm, Study, read_study
from ..study.state import JobState, StateStore
from .study_run import Measure, Pair, RunResult, read_run


@dataclass
class ArmResult:
    """The results of one way to train.

    Attributes:
        name: Arm, with the point of its grid if several are shown.
        runs: Seed -> finished run; the untouched LLM has one.
        planned: Number of planned runs.
    """

    name: str
    runs: dict[int, RunResult]
    planned: int

    def by_seed(self, measure: Measure) -> dict[int, dict[str, float]]:
        """Returns seed -> item -> score, for the runs that have the measure."""
        return {seed: run.scores[measure] for seed, run in self.runs.items() if measure in run.scores}

    @property
    def scores(self) -> dict[Measure, list[dict[str, float]]]:
        """Measure -> for each run that has it item -> score."""
        found: dict[Measure, list[dict[str, float]]] = {}
        for run in self.runs.values():
            for measure, scores in run.scores.items():
                found.setdefault(measure, []).append(scores)
        return found

    def shifts(self, pair: Pair) -> list[ShiftRecord]:
        """Returns the shifts of its runs."""
        return [shift for run in self.runs.values() if (shift := run.shift(pair)) is not None]


@dataclass
class StudyData:
    """A study's results.

    Attributes:
        study: Its plan, with the given directory.
        arms: In the order of the plan, the untouched LLM first; for a grid with a choice, the chosen point.
        runs: All finished runs of trained arms, including those at points not chosen.
        notes: What is missing.
        grids: Arm -> points of its grid with the metric that chose among them, best first.
        states: The requested runs, with their outcome.
    """

    study: Study
    arms: list[ArmResult]
    runs: list[RunResult]
    notes: list[str]
    grids: dict[str, list[tuple[dict[str, Any], float]]]
    states: list[tuple[Job, JobState]] = field(default_factory=list)

    @property
    def measures(self) -> list[Measure]:
        """Those that any arm has, the paper's two first."""
        found = {measure for arm in self.arms for measure in arm.scores}
        return sorted(found, key=lambda m: (m.set, m.kind, m.modality != "text"))

    @property
    def pairs(self) -> list[Pair]:
        """Probes and estimators that any run measured."""
        return list(dict.fromkeys(pair for run in self.runs for pair in run.last))

    @property
    def leading_pairs(self) -> list[Pair]:
        """Those of the first estimator in the plan's tracker, which the study is about."""
        return [pair for pair in self.pairs if pair[1] == self.pairs[0][1]]

    @property
    def trained(self) -> list[ArmResult]:
        """The arms that have runs, without the untouched LLM."""
        return [arm for arm in self.arms if arm.name != UNTOUCHED and arm.runs]

    @property
    def untouched(self) -> RunResult | None:
        """The untouched LLM's scores."""
        arm = self.arm(UNTOUCHED)
        return arm.runs[0] if arm else None

    def arm(self, name: str) -> ArmResult | None:
        """Returns the arm of this name that has runs."""
        return next((arm for arm in self.arms if arm.name == name and arm.runs), None)


def is_study(path: Path) -> bool:
    """Returns whether a directory is a study's."""
    return (path / STUDY_FILE).is_file()


def load_study(path: Path) -> StudyData:
    """Reads a study's directory.

    Raises:
        UserError: If no run is finished.
    """
    study = replace(read_study(path / STUDY_FILE, check_files=False), directory=path)
    store = StateStore(path)
    states = {job.name: store.read(job.name) for job in planned_jobs(study)}
    jobs = {job.name: job for job in planned_jobs(study)}
    done = {
        name: read_run(job.arm, job.variant, job.seed, Run.open(job.directory))
        for name, job in jobs.items()
        if holds_part(job.directory) and (states[name].status == "finished" or job.arm == UNTOUCHED)
    }
    untouched = {0: done[UNTOUCHED]} if UNTOUCHED in done else {}
    data = StudyData(study, [ArmResult(UNTOUCHED, untouched, 1)] if study.untouched else [], [], [], {})
    complete = [run for name, run in done.items() if states[name].done(jobs[name].test)]
    for arm in study.arms:
        data.arms += _arm_results(data, arm, store, complete)
    data.runs = [run for run in done.values() if run.arm != UNTOUCHED]
    for name, job in jobs.items():
        if states[name].status != "pending" or _is_asked(data, job):
            data.states.append((replace(job, test=job.test and _is_chosen(data, job)), states[name]))
    data.notes += [
        f"{arm.name}: {len(arm.runs)} of {arm.planned} runs are finished"
        for arm in data.arms
        if len(arm.runs) < arm.planned
    ]
    if not any(arm.scores for arm in data.arms):
        raise UserError(f"report: no run of {path} is finished and scored (textkeep study runs them)")
    return data


def _arm_results(data: StudyData, arm: Arm, store: StateStore, complete: list[RunResult]) -> list[ArmResult]:
    """Returns an arm at its chosen point, or at all points if none is chosen."""
    shown = points(arm)
    if chooses(data.study, arm):
        scored = data.grids[arm.name] = scored_points(data.study, arm, store)
        shown = [point for point, _ in scored[:1]]
        if not scored:
            data.notes.append(f"{arm.name}: no point of its grid is finished")
    found = []
    for point in shown:
        variant = variant_name(arm.name, point)
        runs = {run.seed: run for run in complete if (run.arm, run.variant) == (arm.name, variant)}
        found.append(ArmResult(variant if len(shown) > 1 else arm.name, runs, len(arm.seeds)))
    return found


def _is_asked(data: StudyData, job: Job) -> bool:
    """Returns whether the plan currently asks for a run: not for other seeds at points that were not chosen."""
    first = next((arm.seeds[0] for arm in data.study.arms if arm.name == job.arm), job.seed)
    return job.seed == first or _is_chosen(data, job)


def _is_chosen(data: StudyData, job: Job) -> bool:
    """Returns whether a run proceeds to the test: its point was chosen, or no choice is made."""
    arm = next((arm for arm in data.study.arms if arm.name == job.arm), None)
    if arm is None or not chooses(data.study, arm):
        return True
    chosen = data.grids[arm.name][:1]
    return bool(chosen) and chosen[0][0] == job.point

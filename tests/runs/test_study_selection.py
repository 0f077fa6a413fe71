"""Which point of a grid is taken, by one measure or by two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from textkeep.cli.main import main
from textkeep.runs.study.jobs import job_of
from textkeep.runs.study.selection import choose, scored_points
from textkeep.runs.study.spec import Study, read_study
from textkeep.runs.study.state import JobState, StateStore

SPEECH, TEXT = "val/speech_accuracy", "val/manual/loss"
TWO = {"metric": SPEECH, "within": 0.05, "then": {"metric": TEXT, "mode": "min"}}


def ordered(path: Path, runs: dict[float, tuple[float, float | None]]) -> list[float]:
    """The points of an arm's grid, best first, after runs that ended with these two metrics."""
    study = read_study(path)
    arm, store = study.arms[0], StateStore(study.directory)
    for setting, (speech, text) in runs.items():
        job = job_of(study, arm, {"model.lr": setting}, arm.seeds[0])
        job.directory.mkdir(parents=True)
        (job.directory / "config.yaml").write_text("trainer: {}\n")
        second = "" if text is None else str(text)
        (job.directory / "metrics.csv").write_text(f"step,{SPEECH},{TEXT}\n60,{speech},{second}\n")
        store.write(JobState(job.name, "finished", fitted=True))
    taken = [point["model.lr"] for point, _ in scored_points(study, arm, store)]
    assert choose(study, arm, store)[1]["chosen"] == {"model.lr": taken[0]}
    return taken


RUNS = {1: (0.55, 3.9), 2: (0.50, 3.6), 3: (0.51, 3.5), 4: (0.30, 3.2), 5: (0.49, 3.1)}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"metric": SPEECH}, [1, 3, 2, 5, 4]),
        ({"metric": TEXT, "mode": "min"}, [5, 4, 3, 2, 1]),
        (TWO, [3, 2, 1, 5, 4]),  # 0.5 is still within 0.05 of 0.55, 0.49 is not
        ({**TWO, "then": {"metric": TEXT}}, [1, 2, 3, 5, 4]),
        ({"metric": TEXT, "mode": "min", "within": 0.45, "then": {"metric": SPEECH}}, [3, 5, 4, 2, 1]),
    ],
)
def test_of_the_points_that_are_near_the_best_the_second_measure_chooses(
    plan: Any, rule: dict[str, Any], expected: list[int]
) -> None:
    arms = {"full": {"grid": {"model.lr": sorted(RUNS)}}}
    assert ordered(plan(arms=arms, selection=rule), dict(RUNS)) == expected


def test_a_point_without_the_second_measure_comes_after_those_that_have_it(plan: Any) -> None:
    arms = {"full": {"grid": {"model.lr": [1, 2, 3]}}}
    assert ordered(plan(arms=arms, selection=TWO), {1: (0.5, None), 2: (0.48, 3.9), 3: (0.2, 3.0)}) == [2, 1, 3]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": SPEECH, "within": 0.1}, "within and then together"),
        ({"metric": SPEECH, "then": {"metric": TEXT}}, "within and then together"),
        ({**TWO, "within": 0}, "selection.within: 0 (allowed: a positive number"),
        ({**TWO, "within": True}, "selection.within: True (allowed: a positive number"),
        ({**TWO, "then": {"metric": "test/x"}}, "selection.then.metric: 'test/x' (allowed: a metric of val"),
        ({**TWO, "then": {**TWO}}, "selection.then: {"),
        ({**TWO, "than": 1}, "selection: 'than' (allowed: metric, mode, within, then)"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(
    plan: Any, capsys: pytest.CaptureFixture[str], rule: dict[str, Any], message: str
) -> None:
    path = plan(arms={"full": {"grid": {"model.lr": [1, 2]}}}, selection=rule)
    assert main(["study", str(path), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_the_report_says_by_which_rule(plan: Any) -> None:
    study: Study = read_study(plan(arms={"full": {"grid": {"model.lr": [1, 2]}}}, selection=TWO))
    assert study.selection is not None
    assert study.selection.words == "val/speech_accuracy (max), within 0.05 by val/manual/loss (min)"

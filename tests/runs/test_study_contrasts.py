"""Pairs of arms that a plan names, compared seed by seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy import stats

from tests.support.study_runs import ITEMS, write_study
from textkeep.evaluation import mcnemar
from textkeep.foundation.errors import UserError
from textkeep.runs.report.study_data import ArmResult, StudyData, load_study
from textkeep.runs.report.study_run import Measure, RunResult
from textkeep.runs.report.tables.contrasts import contrast_table
from textkeep.runs.study.spec import read_study

LOSS = Measure("prose", "text", "loss")


@pytest.fixture
def data(tmp_path: Path) -> StudyData:
    (tmp_path / "x.yaml").write_text("{}")
    plan = {"configs": [str(tmp_path / "x.yaml")], "contrasts": [["a", "b"], ["b", "c"]]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**plan, "arms": {"a": None, "b": None, "c": None}}))
    return StudyData(read_study(tmp_path / "study.yaml"), [], [], [], {})


def arm(name: str, by_seed: dict[int, float]) -> ArmResult:
    """Runs whose loss is the same on all items."""
    runs = {seed: RunResult(name, name, seed, Path(name)) for seed in by_seed}
    for seed, run in runs.items():
        run.scores = {LOSS: {f"i{n}": by_seed[seed] for n in range(5)}}
    return ArmResult(name, runs, len(runs))


def test_runs_of_a_seed_are_compared_with_each_other(data: StudyData) -> None:
    gains = {0: 0.10, 1: 0.20, 2: 0.60}
    level = {0: 3.0, 1: 7.0, 2: 5.0}  # how easy a seed is moves both arms, and is no difference between them
    data.arms = [arm("a", {seed: level[seed] + gains[seed] for seed in gains}), arm("b", {**level, 3: 99.0})]
    table = contrast_table(data)
    assert table is not None
    student = stats.ttest_1samp([*gains.values()], 0.0)
    low, high = student.confidence_interval()
    (row,) = table.rows
    assert row[:4] == ["a - b", "prose loss", "3", f"+0.3 [{low:.3g}, {high:.3g}]"]
    assert row[4] == f"{student.pvalue:.2g}"
    assert len(row) == len(table.head)


def test_pairs_without_a_common_seed_are_left_out(data: StudyData) -> None:
    data.arms = [arm("a", {0: 1.0}), arm("b", {1: 2.0}), arm("c", {1: 1.5})]
    table = contrast_table(data)
    assert table is not None
    assert [row[:4] for row in table.rows] == [["b - c", "prose loss", "1 (items only)", "+0.5 [0.5, 0.5]"]]
    data.arms = data.arms[:2]
    assert contrast_table(data) is None


def test_accuracies_of_single_runs_meet_mcnemar(tmp_path: Path) -> None:
    data = load_study(write_study(tmp_path / "s"))
    data.study = replace(data.study, contrasts=(("lora", "full"),))
    table = contrast_table(data)
    assert table is not None
    rows = {row[1]: row for row in table.rows}
    assert {row[2] for row in table.rows} == {"1 (items only)"}  # lora has no second seed
    text = Measure("", "text")
    full, lora = (data.arms[place].runs[0].scores[text] for place in (1, 2))
    items = [f"q{i}" for i in range(ITEMS)]
    test = mcnemar([full[i] > 0 for i in items], [lora[i] > 0 for i in items])
    assert float(rows["T2T"][4]) == pytest.approx(test.p_value, rel=0.06)


@pytest.mark.parametrize("contrasts", [[["a"]], [["a", "a"]], [["a", "z"]], [["a", {"b": 1}]], ["ab"], "a-b"])
def test_a_contrast_is_a_pair_of_arms(contrasts: object, tmp_path: Path) -> None:
    plan = {"configs": ["x.yaml"], "arms": {"a": None, "b": None}, "contrasts": contrasts}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match=r"study\.yaml: contrasts: "):
        read_study(tmp_path / "study.yaml", check_files=False)

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from textkeep.cli.main import main
from textkeep.cli.report.comparison import Table
from textkeep.cli.report.study_data import load_study
from textkeep.cli.report.study_page import study_parts
from textkeep.cli.report.study_run import Measure
from textkeep.cli.report.study_tables import compare, difference_table, scores_table
from textkeep.evaluation import hierarchical_bootstrap, mcnemar

from .study_runs import ITEMS, write_study

FIGURES = [
    "Text kept against speech gained",
    "Shift against its null",
    "Profile of importance",
    "Change of importance by layer and arm",
    "Change of importance by layer and kind of matrix",
    "Shift and text lost",
    "Change of the weights by layer and arm",
    "Change of the weights by layer and kind of matrix",
    "Where the weights moved against where they were important",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "s")


def test_the_scores_are_those_of_the_records_with_bootstrap_intervals(study: Path) -> None:
    data = load_study(study)
    assert [arm.name for arm in data.arms] == ["untouched", "full", "lora"]
    assert data.notes == ["lora: 1 of 2 runs are finished"]
    assert list(data.arms[2].runs) == [0]
    assert data.arms[2].runs[0].directory.parent.name == "lora,lr=2"  # the better point of the grid
    table = scores_table(data)
    assert table.head == ["arm", "seeds", "T2T", "S2T", "prose loss"]
    full = data.arms[1].scores[Measure("", "text")]
    matrix = np.array([[run[f"q{i}"] for i in sorted(range(ITEMS), key=lambda i: f"q{i}")] for run in full])
    expected = hierarchical_bootstrap(matrix)
    value, low, high = (100 * part for part in expected[:3])
    assert table.rows[1][:3] == ["full", "2", f"{value:.3g} [{low:.3g}, {high:.3g}]"]
    assert table.rows[1][4].startswith("4.48 [")


def test_differences_are_paired_and_adjusted(study: Path) -> None:
    data = load_study(study)
    table = difference_table(data, "untouched")
    assert table is not None
    rows = {(row[0], row[1]): row for row in table.rows}
    assert set(rows) == {(arm, label) for arm in ("full", "lora") for label in ("T2T", "S2T", "prose loss")}
    assert rows["full", "prose loss"][2].startswith("+1.03 [1.02, 1.04]")
    assert float(rows["full", "T2T"][3]) < 0.05
    assert all(float(row[4]) >= float(row[3]) for row in table.rows)
    assert difference_table(data, "no such arm") is None


def test_single_runs_are_compared_by_mcnemar() -> None:
    rng = np.random.default_rng(1)
    before, after = ({f"q{i}": float(rng.random() < share) for i in range(80)} for share in (0.5, 0.7))
    found = compare([after], [before], Measure("", "text"))
    test = mcnemar([before[f"q{i}"] > 0 for i in range(80)], [after[f"q{i}"] > 0 for i in range(80)])
    assert found.p_value == pytest.approx(test.p_value)
    assert found.estimate == pytest.approx(np.mean([*after.values()]) - np.mean([*before.values()]))


def test_the_report_of_a_study_is_a_page_and_tables(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(study)]) == 0
    page, text = (study / "report.html").read_text(), (study / "tables.md").read_text()
    titles = [
        "Scores by arm",
        "Differences to full",
        "Differences to untouched",
        "Shift of importance",
        "Shift and text lost, over runs",
        "Change and importance inside the matrices",
        "Removal test",
        "Points of the grids",
        "Runs that are missing",
    ]
    assert [table["title"] for table in json.loads((study / "tables.json").read_text())] == titles
    for title in titles:
        assert f"<h2>{title}</h2>" in page
        assert f"**{title}**" in text
    for title in FIGURES:
        assert f"<h2>{title}</h2>" in page
    assert "lora: 1 of 2 runs are finished" in page
    assert "| lora | m.lr = 2 | 0.5 | taken | +0.18 [0.18, 0.18] |" in text
    assert "Scores by arm" in capsys.readouterr().out


def test_every_row_is_as_wide_as_its_head(study: Path) -> None:
    for table in (part for part in study_parts(load_study(study)) if isinstance(part, Table)):
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title
        assert asdict(table)["note"]


def test_a_study_without_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan: dict[str, Any] = {"configs": ["x.yaml"], "arms": {"full": None}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    assert main(["report", str(tmp_path)]) == 2
    assert "is finished and scored" in capsys.readouterr().err

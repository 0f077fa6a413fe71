from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from tests.support.study_runs import ITEMS, write_study
from textkeep.cli.main import main
from textkeep.evaluation import (
    Estimate,
    crossed_t,
    mcnemar,
    paired_difference,
    read_predictions,
    write_predictions,
)
from textkeep.runs.report.estimates import adjusted, difference
from textkeep.runs.report.study_data import load_study
from textkeep.runs.report.study_headline import headline_part, kept_by_arm, text_measure
from textkeep.runs.report.study_page import StudyReport
from textkeep.runs.report.study_run import Measure
from textkeep.runs.report.tables.differences import difference_table
from textkeep.runs.report.tables.scores_by_arm import scores_table

FIGURES = [
    "Text kept against speech gained",
    "Shift beside its scale",
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


def test_the_scores_are_those_of_the_records_with_intervals_over_seeds_and_items(study: Path) -> None:
    data = load_study(study)
    assert [arm.name for arm in data.arms] == ["untouched", "full", "lora"]
    assert data.notes == ["lora: 1 of 2 runs are finished"]
    assert list(data.arms[2].runs) == [0]
    assert data.arms[2].runs[0].run.path.parent.name == "lora,lr=2"  # the better point of the grid
    table = scores_table(data)
    assert table.head == ["arm", "seeds", "T2T", "S2T", "prose loss"]
    full = data.arms[1].scores[Measure("", "text")]
    matrix = np.array([[run[f"q{i}"] for i in sorted(range(ITEMS), key=lambda i: f"q{i}")] for run in full])
    expected = crossed_t(matrix, bounds=(0.0, 1.0))
    value, low, high = (100 * part for part in expected[:3])
    assert table.rows[1][:3] == ["full", "2", f"{value:.3g} [{low:.3g}, {high:.3g}]"]
    assert table.rows[1][4].startswith("4.48 [")
    assert [row[1] for row in table.rows] == ["-", "2", "1 (items only)"]  # nothing is claimed of other seeds of lora


def test_differences_are_paired_and_adjusted(study: Path) -> None:
    data = load_study(study)
    table = difference_table(data, "untouched")
    assert table is not None
    rows = {(row[0], row[1]): row for row in table.rows}
    assert set(rows) == {(arm, label) for arm in ("full", "lora") for label in ("T2T", "S2T", "prose loss")}
    # Two seeds, 1.02 and 1.04 on every item: Student's t with one degree of freedom.
    half = stats.t.ppf(0.975, 1) * 0.01
    assert rows["full", "prose loss"][2:4] == ["2", f"+1.03 [{1.03 - half:.3g}, {1.03 + half:.3g}]"]
    assert rows["full", "prose loss"][4] == f"{2 * stats.t.sf(103, 1):.2g}"
    assert rows["lora", "T2T"][2] == "1 (items only)"
    levels = [tuple(float(cell.replace("< ", "")) for cell in row[4:6]) for row in table.rows]
    assert all(adjusted >= p for p, adjusted in levels)
    assert difference_table(data, "no such arm") is None


@pytest.mark.parametrize("parts", [("untouched-test",), ("full/seed=0", "full/seed=1")])
def test_arms_that_were_asked_other_questions_are_compared_where_they_were_asked_the_same(
    study: Path, parts: tuple[str, ...], tmp_path: Path
) -> None:
    """A plan without tests has validation questions of its runs and test questions of the untouched LLM."""
    study = Path(shutil.copytree(study, tmp_path / "study"))
    for part in parts:
        (path,) = (study / "runs" / part / "evaluation/test").glob("step=*.jsonl")
        write_predictions(path, [replace(r, id=f"other-{r.id}") for r in read_predictions(path)])
    report = StudyReport(study)
    report.write(tmp_path / "report.html")
    tables = {table.title: table for table in report.tables}
    for name in ("Differences to untouched", "Differences to full"):
        rows = {(row[0], row[1]) for row in tables[name].rows}
        assert ("lora", "prose loss") in rows
        apart = ("full" in name) == ("untouched" not in parts[0])
        assert (("lora", "T2T") in rows) is not apart


def test_single_runs_are_compared_by_mcnemar() -> None:
    rng = np.random.default_rng(1)
    before, after = ({f"q{i}": float(rng.random() < share) for i in range(80)} for share in (0.5, 0.7))
    found = difference({3: after}, {3: before}, Measure("", "text"))
    test = mcnemar([before[f"q{i}"] > 0 for i in range(80)], [after[f"q{i}"] > 0 for i in range(80)])
    assert found.p_value == pytest.approx(test.p_value)
    tango = paired_difference([before[f"q{i}"] > 0 for i in range(80)], [after[f"q{i}"] > 0 for i in range(80)])
    assert found[:3] == pytest.approx(tango)
    assert found.seeds == 1


def test_runs_without_a_seed_in_common_are_independent() -> None:
    rng, loss = np.random.default_rng(2), Measure("prose", "text", "loss")
    items = rng.normal(size=30)
    runs = {seed: dict(zip(map(str, range(30)), items + 0.1 * seed, strict=True)) for seed in range(5)}
    apart = difference({0: runs[0], 1: runs[1]}, {2: runs[2], 3: runs[3]}, loss)
    assert apart.estimate == pytest.approx(-0.2)
    assert (apart.high - apart.low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(2 * 0.05**2), rel=1e-6)
    paired = difference({0: runs[0], 1: runs[1]}, {0: runs[2], 1: runs[3], 4: runs[4]}, loss)
    assert paired.high - paired.low < 1e-9
    assert paired.seeds == 2


def test_one_seed_and_several_are_two_families_of_tests() -> None:
    found = [Estimate(0.0, 0.0, 0.0, p, seeds) for p, seeds in ((0.01, 3), (0.02, 1), (0.04, 3), (0.03, 1))]
    assert adjusted(found) == pytest.approx([0.02, 0.04, 0.04, 0.04])


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
        assert f"<figcaption>{title}</figcaption>" in page
        assert f"**{title}**" in text
    for title in FIGURES:
        assert f"<figcaption>{title}<" in page
    assert len(page) < 3e6  # docs/studies.md; Plotly is two thirds of that
    assert page.count('class="canvas"') == len(FIGURES)
    assert str(headline_part(load_study(study))) in page
    assert "lora: 1 of 2 runs are finished" in page
    assert "| lora | m.lr = 2 | 0.5 | taken | +0.18 [0.18, 0.18] |" in text
    assert "Scores by arm" in capsys.readouterr().out


def test_every_row_is_as_wide_as_its_head(study: Path) -> None:
    for table in StudyReport(study).tables:
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title
        assert asdict(table)["note"]


def test_a_study_without_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan: dict[str, Any] = {"configs": ["x.yaml"], "arms": {"full": None}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    assert main(["report", str(tmp_path)]) == 2
    assert "is finished and scored" in capsys.readouterr().err


def test_the_page_begins_with_what_was_found(study: Path) -> None:
    data = load_study(study)
    measure = text_measure(data)
    assert measure == Measure("prose", "text", "loss")  # plain text before accuracies
    kept = kept_by_arm(data, measure)
    assert [one.arm.name for one in kept] == ["lora", "full"]
    start = data.untouched.scores[measure]  # type: ignore[union-attr]
    for one in kept:
        changes = [np.mean([run[i] - start[i] for i in start]) for run in one.arm.by_seed(measure).values()]
        assert one.change.estimate == pytest.approx(np.mean(changes))
    assert [one.p for one in kept] == adjusted([one.change for one in kept])
    page = str(headline_part(data))
    losers = sum(one.p < 0.05 and one.change.estimate > 0 for one in kept)
    assert f"Text demonstrably lost in {losers} of 2 arms" in page
    assert "least lost, one seed: items only" in page
    assert "best on spoken questions, one seed: items only" in page
    right = 100 * np.mean(list(data.arms[2].scores[Measure("", "speech")][0].values()))
    assert f"{right:.3g} [" in page


def test_a_study_without_the_untouched_llm_has_no_headline(study: Path) -> None:
    data = load_study(study)
    data.arms = [arm for arm in data.arms if arm.name != "untouched"]
    assert str(headline_part(data)) == ""

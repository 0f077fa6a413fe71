from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from textkeep.cli.main import main
from textkeep.cli.report.study_data import Measure, load_study
from textkeep.cli.report.study_tables import compare, difference_table, scores_table, study_tables
from textkeep.cli.study.state import JobState, StateStore
from textkeep.evaluation import Prediction, hierarchical_bootstrap, mcnemar, write_predictions

from .report_run import write_run

ITEMS = 60
SHARES = {"untouched": (0.6, 0.05), "full": (0.4, 0.5), "lora": (0.58, 0.55)}


def records(arm: str, seed: int, rng: np.random.Generator) -> list[Prediction]:
    text, speech = SHARES[arm]
    easy = np.random.default_rng(7).random(ITEMS)
    found = []
    for modality, share in (("text", text), ("speech", speech)):
        for i in range(ITEMS):
            right = easy[i] + 0.15 * rng.standard_normal() < share
            found.append(Prediction(f"q{i}", modality, prediction="x", correct=bool(right)))
    return found


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished study: two arms with two seeds each, the untouched LLM, a further set; one run of lora is missing."""
    folder = tmp_path / "s"
    plan = {"configs": ["gone.yaml"], "seeds": [0, 1], "arms": {"full": None, "lora": {"grid": {"m.lr": [1, 2]}}}}
    plan["selection"] = {"metric": "val/speech_accuracy"}
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(plan))
    store, rng = StateStore(folder), np.random.default_rng(0)
    runs = {"full,seed=0": "full/seed=0", "full,seed=1": "full/seed=1"}
    runs |= {"lora,lr=1,seed=0": "lora,lr=1/seed=0", "lora,lr=2,seed=0": "lora,lr=2/seed=0"}
    for job, place in {"untouched": "untouched-test", **runs}.items():
        run = folder / "runs" / place
        if job != "untouched":
            write_run(run, steps=(0, 30), layers=4, parts=("config", "importance"), seed=int(job[-1]))
            rate = 0.5 if "lr=2" in job else 0.4
            (run / "metrics.csv").write_text(f"step,val/speech_accuracy\n1,0.1\n2,{rate}\n")
        arm = job.split(",")[0]
        write_predictions(run / "evaluation/test/step=000030.jsonl", records(arm, 0, rng))
        prose = [Prediction(f"p{i}", "text", loss=3 + 0.1 * i + (arm == "full"), tokens=9) for i in range(10)]
        write_predictions(run / "evaluation/test/prose/step=000030.jsonl", prose)
        store.write(JobState(job, "finished", tested=True))
    store.write(JobState("lora,lr=2,seed=1", "failed", error="it burnt"))
    return folder


def test_the_scores_are_those_of_the_records_with_bootstrap_intervals(study: Path) -> None:
    data = load_study(study)
    assert [arm.name for arm in data.arms] == ["untouched", "full", "lora"]
    assert data.notes == ["lora: 1 of 2 runs are finished"]
    assert list(data.arms[2].runs) == [0]
    assert data.arms[2].runs[0].parent.name == "lora,lr=2"  # the better point of the grid
    table = scores_table(data)
    assert table.head == ["arm", "seeds", "T2T", "S2T", "prose loss"]
    full = data.arms[1].scores[Measure("", "text")]
    matrix = np.array([[run[f"q{i}"] for i in sorted(range(ITEMS), key=lambda i: f"q{i}")] for run in full])
    expected = hierarchical_bootstrap(matrix)
    value, low, high = (100 * part for part in expected[:3])
    assert table.rows[1][:3] == ["full", "2", f"{value:.3g} [{low:.3g}, {high:.3g}]"]
    assert table.rows[1][4].startswith("4.45 [")


def test_differences_are_paired_and_adjusted(study: Path) -> None:
    data = load_study(study)
    table = difference_table(data, "untouched")
    assert table is not None
    rows = {(row[0], row[1]): row for row in table.rows}
    assert set(rows) == {(arm, label) for arm in ("full", "lora") for label in ("T2T", "S2T", "prose loss")}
    assert rows["full", "prose loss"][2].startswith("+1 [1, 1]")
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
        "Points of the grids",
    ]
    assert [table["title"] for table in json.loads((study / "tables.json").read_text())] == titles
    for title in titles:
        assert f"<h2>{title}</h2>" in page
        assert f"**{title}**" in text
    assert "Text kept against speech gained" in page
    assert "Profile of importance: heldout_text, taylor" in page
    assert "lora: 1 of 2 runs are finished" in page
    assert "| lora | m.lr = 2 | 0.5 | taken |" in text
    assert "Scores by arm" in capsys.readouterr().out


def test_every_row_is_as_wide_as_its_head(study: Path) -> None:
    for table in study_tables(load_study(study)):
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title
        assert asdict(table)["note"]


def test_a_study_without_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan: dict[str, Any] = {"configs": ["x.yaml"], "arms": {"full": None}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    assert main(["report", str(tmp_path)]) == 2
    assert "is finished and scored" in capsys.readouterr().err

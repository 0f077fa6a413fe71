"""Causal importance on a run's page: the gradient's shift beside that of real effects, in a table and in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textkeep.importance.summary import SummaryFile
from textkeep.runs import Run
from textkeep.runs.report.causal_verdict import causal_findings
from textkeep.runs.report.run_page import run_page
from textkeep.runs.report.tables.causal import causal_table

ORDER = {"first": (0.40, 0.10, 0.60), "last": (0.35, 0.05, 0.55), "moved": (0.20, -0.10, 0.45)}


def ranked(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def line(step: int, estimator: str, js: float, p: float, **own: Any) -> dict[str, Any]:
    estimate = {"value": js, "low": js / 2, "high": 2 * js, "null": 0.01, "null_p95": 0.02, "p": p}
    metrics = dict.fromkeys(("js", "log_total_ratio", "wasserstein"), estimate)
    shift = {
        "metrics": metrics, "layers": {}, "p_floor": 2e-4,
        "peak_before": "layer_00", "peak_after": "layer_01", "total_before": 1.0, "total_after": 0.9,
        "loss_before": 3.0, "loss_after": 3.1, "examples": 12, "untested": "",
    }  # fmt: skip
    shares = {"layer_00": 0.6, "layer_01": 0.4}
    return {
        "step": step, "probe": "plain", "estimator": estimator, "loss": 3.0, "examples": 12, "total": 1.0,
        "shares": shares, "kinds": {"q": 1.0}, "coverage": 1.0, "shares_of": "", "seconds": 1.0, "shift": shift, **own,
    }  # fmt: skip


def written(folder: Path, p_taylor: float = 0.0002, p_ablation: float = 0.3, low: float = 0.05) -> Run:
    (folder / "importance").mkdir(parents=True)
    (folder / "config.yaml").write_text("{}\n")
    last = (ORDER["last"][0], low, ORDER["last"][2])
    lines = []
    for step, order in ((0, ORDER["first"]), (40, last)):
        beside = {"estimator": "taylor", "ablation": "ablation", "now": ranked(*order)}
        causal = {**beside, "moved": ranked(*ORDER["moved"]) if step else None}
        lines.append(line(step, "taylor", 0.04, p_taylor, causal=causal))
        lines.append(line(step, "ablation", 0.02, p_ablation, costless={"groups": 1, "of": 2, "part": 0.125}))
    SummaryFile(folder / "importance/summary.jsonl").write(lines)
    return Run.open(folder)


def test_a_row_has_both_shifts_with_their_p_and_how_the_orders_agree(tmp_path: Path) -> None:
    table = causal_table([written(tmp_path / "run")])
    assert table is not None
    assert table.rows == [
        [
            "run", "plain", "taylor", "0.04 [0.02, 0.08], p <= 0.0002", "0.02 [0.01, 0.04], p = 0.3",
            "0.40 [0.10, 0.60]", "0.35 [0.05, 0.55]", "0.20 [-0.10, 0.45]", "1 of 2 (12%)",
        ]
    ]  # fmt: skip
    assert len(table.head) == len(table.rows[0])


@pytest.mark.parametrize(
    ("taylor", "ablation", "words", "mark"),
    [
        (0.0002, 0.0002, "both shifted", "plain"),
        (0.0002, 0.3, "the gradient indicates a shift that removal does not establish", "open"),
        (0.3, 0.0002, "removal shows a shift that the gradient does not establish", "open"),
        (0.3, 0.3, "neither demonstrably shifted", "plain"),
    ],
)
def test_in_words_whose_shift_is_certain(taylor: float, ablation: float, words: str, mark: str, tmp_path: Path) -> None:
    (finding,) = causal_findings(written(tmp_path / "run", taylor, ablation))
    assert (finding.topic, finding.mark) == ("Causal importance (plain)", mark)
    assert finding.text.startswith(words)
    assert "0.35 [0.05, 0.55], and their changes agree by 0.20 [-0.10, 0.45]" in finding.text


def test_an_order_that_may_be_chance_is_said_to_be_so(tmp_path: Path) -> None:
    (finding,) = causal_findings(written(tmp_path / "run", 0.0002, 0.0002, low=-0.2))
    assert "0.35 [-0.20, 0.55], not demonstrably above 0" in finding.text
    assert finding.mark == "open"


def test_the_page_has_both_and_a_run_without_ablation_neither(tmp_path: Path) -> None:
    run = written(tmp_path / "run")
    page = run_page([run])
    assert "Gradient and ablation" in page
    assert "Causal importance (plain)" in page
    path = tmp_path / "run/importance/summary.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    plain = [{k: v for k, v in x.items() if k != "causal"} for x in lines if x["estimator"] == "taylor"]
    SummaryFile(path).write(plain)
    without = Run.open(tmp_path / "run")
    assert causal_table([without]) is None
    assert causal_findings(without) == []

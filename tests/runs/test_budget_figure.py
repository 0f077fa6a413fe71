"""The figure of a budget shows what the run logged, and is left out where there is none."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from textkeep.foundation.run_names import budget_texts
from textkeep.runs import Run
from textkeep.runs.report.figures.budget import budget
from textkeep.runs.watch.frame import frame
from textkeep.runs.watch.run_view import RunView

NAMES = ("increase", "low", "high", "allowed", "weight_l2sp")
HEADER = ",".join(["epoch", "step", *(f"budget/prose/{name}" for name in NAMES)]) + "\n"
ROWS = ("0,0,0,0,0,0.02,1", "0,5,0.015,0.01,0.02,0.02,0.5", "0,10,0.03,0.02,0.05,0.02,2.5")


def run_with(folder: Path, text: str) -> Run:
    folder.mkdir()
    (folder / "config.yaml").write_text("trainer: {}\n")
    (folder / "metrics.csv").write_text(text)
    return Run.open(folder)


def test_increase_limits_budget_and_weight_are_drawn(tmp_path: Path) -> None:
    figures = budget([run_with(tmp_path / "a", HEADER + "\n".join(ROWS) + "\n")])
    assert [figure.id for figure in figures] == ["budget", "budget-weight"]
    (curve,) = figures[0].drawn[""]["data"]
    assert curve["x"] == [0, 5, 10]
    assert curve["y"] == [0, 0.015, 0.03]
    assert curve["error_y"]["array"] == [0, 0.005, 0.02]
    assert curve["error_y"]["arrayminus"] == [0, 0.005, 0.01]
    assert [shape["y0"] for shape in figures[0].drawn[""]["layout"]["shapes"]] == [0.02]
    (weight,) = figures[1].drawn[""]["data"]
    assert weight["y"] == [1, 0.5, 2.5]


def test_without_a_budget_there_is_no_figure(tmp_path: Path) -> None:
    assert budget([run_with(tmp_path / "a", "epoch,step,train/loss\n0,1,2.0\n")]) == []
    assert budget_texts(["budget/a/increase", "budget/a/low", "budget/b-c/increase", "increase"]) == ["a", "b-c"]


def test_watch_shows_the_increase(tmp_path: Path) -> None:
    run_with(tmp_path / "a", HEADER + "\n".join(ROWS) + "\n")
    console = Console(width=100, record=True, file=io.StringIO())
    view = RunView(tmp_path / "a")
    view.refresh()
    console.print(frame(view, None, 100))
    assert "budget/prose/increase  0.03" in console.export_text()

"""A run whose figures are infinite or not a number is shown as what it is, by each reader."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.foundation.plain_tables import sparkline

VALUES = (math.nan, math.inf, -math.inf)


def spoil(value: Any, wrong: float) -> Any:
    """The same with each figure replaced."""
    if isinstance(value, float):
        return wrong
    if isinstance(value, dict):
        return {key: spoil(item, wrong) for key, item in value.items()}
    return [spoil(item, wrong) for item in value] if isinstance(value, list) else value


def spoil_file(path: Path, step: int, wrong: float) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [spoil(line, wrong) if line["step"] >= step else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(params=VALUES, ids=str)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run that went wrong at step 20 of 30."""
    folder, wrong = write_run(tmp_path / "run", steps=(0, 10, 20, 30), items=8, layers=3), request.param
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    for number, row in enumerate(rows):
        cells = row.split(",")
        if int(cells[0]) >= 20:
            rows[number] = ",".join([*cells[:2], *(str(wrong) if cell else "" for cell in cells[2:])])
    (folder / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    spoil_file(folder / "importance/summary.jsonl", 20, wrong)
    for path in (folder / "evaluation").rglob("summary.jsonl"):
        spoil_file(path, 20, wrong)
    return folder


def test_watch_shows_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(run), "--once"]) == 0
    shown = capsys.readouterr().out
    assert "✗ not finite in 3 of them" in shown
    assert "peak in layer" not in shown


def test_a_report_is_made_of_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write_run(run.parent / "sound", steps=(0, 10, 20, 30), items=8, layers=3, seed=1)
    for runs in ([run], [run, sound]):
        page = run.parent / f"{len(runs)}.html"
        assert main(["report", *map(str, runs), "-o", str(page)]) == 0, capsys.readouterr().err
        assert page.stat().st_size > 10_000


def test_a_curve_of_nothing_else_has_no_height() -> None:
    assert sparkline([math.nan, math.inf], 10) == "✗✗"
    assert sparkline([1.0, math.nan, 2.0], 10) == "▁✗█"

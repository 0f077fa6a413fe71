"""The workspace of ``textkeep dashboard``: its spec, its chart, and what a server stores of it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import child_environment
from tests.support.report_run import write_run
from tests.support.wandb_server import KEY, WandbServer
from textkeep.cli.main import main
from textkeep.foundation.run_names import HEAT_MAP_FIELDS
from textkeep.runs.dashboard.heat_map_chart import SPEC

SECTIONS = ["Importance", "Shift", "Retention", "Frontier", "Training", "Learning rates by layer"]
TARGET = ["--entity", "tester", "--project", "textkeep"]


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["dashboard", *TARGET, "--dry-run", *words]) == 0
    return json.loads(capsys.readouterr().out)


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_the_spec_has_all_sections_over_the_global_step(capsys: pytest.CaptureFixture[str]) -> None:
    spec = dry_run(capsys, "--layers", "3", "--probes", "speech", "--estimators", "taylor", "fisher")
    found = panels(spec)
    assert list(found)[: len(SECTIONS)] == SECTIONS
    lines = [p["config"] for p in found["Importance"] if p["viewType"] == "Run History Line Plot"]
    assert lines[0]["metrics"] == [f"importance/speech/taylor/layer_0{i}" for i in range(3)]
    assert lines[2]["metricRegex"] == r"importance/speech/taylor/layer_\d+"
    assert re.fullmatch(lines[2]["metricRegex"], "importance/speech/taylor/layer_117")
    media = next(p["config"] for p in found["Importance"] if p["viewType"] == "Media Browser")
    assert media["mediaKeys"] == ["importance_media/speech/heat_map"]
    chart = next(p["config"] for p in found["Importance"] if p["viewType"] == "Vega2")
    assert chart["panelDefId"] == "tester/textkeep_heat_map"
    assert "importance_media/speech/shares_table" in json.dumps(chart)
    drawn = [p["config"] for p in found["Shift"]]
    kinds = ("js", "js_null", "js_expected")
    assert drawn[0]["metrics"][:3] == [f"importance/speech/taylor/{kind}" for kind in kinds]
    assert {line["xAxis"] for line in [*lines, *drawn]} == {"trainer/global_step"}
    assert [p["viewType"] for p in found["Frontier"]].count("Scatter Plot") == 3
    assert found["Learning rates by layer"][0]["config"]["metrics"][-1] == "lr-AdamW/llm.02"
    assert spec == dry_run(capsys, "--layers", "3", "--probes", "speech", "--estimators", "taylor", "fisher")


def test_names_come_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", steps=(0, 5), items=4, layers=2)
    (run / "metrics.csv").write_text("step,lr-SGD/llm.01,train/loss\n")
    found = panels(dry_run(capsys, "--run", str(run)))
    text = json.dumps(found)
    assert "importance/indomain_text/fisher/layer_01" in text
    assert "layer_02" not in text
    assert found["Learning rates by layer"][0]["config"]["metrics"] == ["lr-SGD/llm.01"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "nowhere"], "--run nowhere: no importance/summary.jsonl"),
        (["--layers", "0"], "--layers 0: a positive number is allowed"),
    ],
)
def test_bad_names_give_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", *TARGET, "--dry-run", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "wandb_workspaces" else find(n, *a))
    assert main(["dashboard", *TARGET]) == 2
    assert "pip install 'textkeep[dashboard]'" in capsys.readouterr().err


def test_the_heat_map_preset_draws_a_cell_for_each_row() -> None:
    import vl_convert

    # What W&B fills in: ${field:x} with the column, ${string:title} with the title, data named wandb with the table.
    text = re.sub(r"\$\{field:(\w+)\}", r"\1", json.dumps(SPEC)).replace("${string:title}", "Shares")
    assert "${" not in text
    assert set(re.findall(r"\$\{field:(\w+)\}", json.dumps(SPEC))) == set(HEAT_MAP_FIELDS)
    rows = [(s, layer, e, s + layer) for s in (0, 30, 60) for layer in range(4) for e in ("taylor", "fisher")]
    data = [dict(zip(HEAT_MAP_FIELDS, row, strict=True)) for row in rows]
    drawn = vl_convert.vegalite_to_svg({**json.loads(text), "data": {"values": data}})
    assert drawn.count('aria-roledescription="rect mark"') == len(rows)
    assert "Shares" in drawn


@pytest.mark.slow
def test_workspace_chart_and_report_are_saved_and_read_back(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "textkeep.cli.main", "dashboard", *TARGET, "--layers", "2", "--report"]
    with WandbServer() as server:
        environment = child_environment(HOME=str(tmp_path), **server.environment)
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.unknown == []
        url = re.search(r"workspace: (\S+)", done.stdout)
        assert url
        assert "report: http" in done.stdout
        assert "textkeep_heat_map" in json.dumps(server.charts)
        kinds = [view["type"] for view in server.views.values()]
        assert sorted(kinds) == ["project-view", "runs"]
        read = "import sys, wandb_workspaces.workspaces as ws; w = ws.Workspace.from_url(sys.argv[1]);"
        read += "print([s.name for s in w.sections], w.settings.x_axis)"
        back = subprocess.run(
            [sys.executable, "-c", read, url[1]], env=environment, capture_output=True, text=True, timeout=60
        )
        assert back.returncode == 0, back.stderr
        assert back.stdout.startswith(str(SECTIONS)[:-1])
        assert "trainer/global_step" in back.stdout
    assert KEY not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_without_a_login_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "textkeep.cli.main", "dashboard", *TARGET]
    environment = {**child_environment(HOME=str(tmp_path)), "PATH": os.environ["PATH"]}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "not logged in to W&B" in done.stderr
    assert done.stderr.count("\n") == 1

"""Fit to the form of the answers, or text lost: the verdict that names which, on small recorded runs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.support.plain_text_set import write_plain_text
from tests.support.probe_run import PASSAGES, QUESTIONS, write_probes
from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.runs import Run
from textkeep.runs.report.finding import Finding
from textkeep.runs.report.plain_text import plain_text_finding
from textkeep.runs.report.tables.probes import probe_table
from textkeep.runs.report.verdict import headline, verdict

COUNT = 12
RISE = [0.10 + 0.01 * (i % 5) for i in range(COUNT)]
FALL = [-0.9 + 0.05 * (i % 5) for i in range(COUNT)]
STILL = [0.01 * (-1) ** i + 0.002 for i in range(COUNT)]


def found(folder: Path, questions: Sequence[float], passages: Sequence[float], moved: Sequence[str]) -> Finding:
    run = Run.open(write_probes(folder / "run", {QUESTIONS: questions, PASSAGES: passages}, moved))
    finding = plain_text_finding(run)
    assert finding is not None
    assert verdict(run)[0] == finding
    assert headline(verdict(run)) == f"{finding.short}."
    return finding


def student(values: Sequence[float]) -> str:
    """The interval by scipy's own t-test."""
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return f"{'+' if np.mean(values) > 0 else ''}{np.mean(values):.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def test_the_form_alone_is_no_text_lost(tmp_path: Path) -> None:
    finding = found(tmp_path, FALL, STILL, moved=[QUESTIONS])
    assert (finding.topic, finding.mark) == ("Fit to the form", "good")
    assert finding.text.startswith("of the answers, no text lost: on questions (questions) ")
    assert f"{student(FALL)} nats a token and importance moved (p <= 0.00049)" in finding.text
    assert f"; {student(STILL)} nats a token on 12 passages of plain text (probe passages); importance" in finding.text
    assert re.search(r"importance on plain text \(passages\) did not demonstrably move \(p = 0\.\d+\)\.$", finding.text)
    assert finding.short.startswith("Fit to the form of the answers, no text lost: ")


@pytest.mark.parametrize(("moved", "said"), [([PASSAGES], "moved"), ([], "did not demonstrably move")])
def test_text_lost_says_how_much_and_whether_importance_moved(tmp_path: Path, moved: list[str], said: str) -> None:
    finding = found(tmp_path, FALL, RISE, moved=[QUESTIONS, *moved])
    assert (finding.topic, finding.mark) == ("Text lost", "bad")
    assert finding.text.startswith(f"{student(RISE)} nats a token on 12 passages")
    assert f"importance on plain text (passages) {said} (p" in finding.text
    assert finding.short == f"Text lost: {student(RISE)} nats a token of plain text"


@pytest.mark.parametrize(
    ("questions", "passages", "moved", "expected"),
    [
        (STILL, STILL, [], ("Text kept?", "open")),
        (STILL, STILL, [QUESTIONS], ("Text kept?", "open")),  # importance moved without the loss: no fit to anything
        (FALL, STILL, [], ("Text kept?", "open")),
        ([-x for x in FALL], STILL, [QUESTIONS], ("Text kept?", "open")),
        (FALL, STILL, [QUESTIONS, PASSAGES], ("Text moved", "open")),
        (FALL, [-x for x in RISE], [QUESTIONS], ("Text kept", "good")),
        (FALL, [0.0] * COUNT, [QUESTIONS], ("Text kept", "same")),
    ],
)
def test_neither_is_said_where_neither_is_shown(
    tmp_path: Path, questions: list[float], passages: list[float], moved: list[str], expected: tuple[str, str]
) -> None:
    finding = found(tmp_path, questions, passages, moved)
    assert (finding.topic, finding.mark) == expected


def test_a_scored_set_gives_the_loss_and_the_probe_says_whether_importance_moved(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=(0, 20), items=20, layers=2, parts=("evaluation",))
    write_probes(run, {QUESTIONS: FALL, PASSAGES: RISE}, moved=[QUESTIONS])
    write_plain_text(run, [0.01, -0.01] * 20)
    finding = plain_text_finding(Run.open(run))
    assert finding
    assert finding.topic == "Fit to the form"  # 40 passages of evaluation count, not the 12 of the probe
    assert "on 40 passages of plain text (plain_text); importance on plain text (passages) did not" in finding.text
    assert headline(verdict(Run.open(run))) == f"{finding.short}; it listens."


def test_a_loss_that_is_no_number_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=(0, 20), items=20, layers=2, parts=("evaluation",))
    write_plain_text(run, [0.0] * 19 + [math.nan])
    finding = plain_text_finding(Run.open(run))
    assert finding
    assert (finding.topic, finding.mark) == ("Text lost", "bad")
    assert finding.text == "the loss on 20 passages of plain text (plain_text) is no longer a number."
    assert headline(verdict(Run.open(run))) == f"{finding.short}; it listens."


def test_without_plain_text_or_a_second_measurement_nothing_is_said(tmp_path: Path) -> None:
    run = Run.open(write_probes(tmp_path / "questions", {QUESTIONS: FALL}, moved=[QUESTIONS]))
    assert plain_text_finding(run) is None
    assert not headline(verdict(run)).startswith(("Fit", "Text"))
    once = write_run(tmp_path / "once", steps=(0,), items=5, layers=2)
    assert plain_text_finding(Run.open(once)) is None
    table = probe_table([Run.open(once)])
    assert table
    assert {len(row) for row in table.rows} == {len(table.head)}
    assert {row[5] for row in table.rows} == {"measured once"}


def test_the_page_shows_all_probes_in_one_table_and_leads_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_probes(tmp_path / "run", {QUESTIONS: FALL, PASSAGES: RISE}, moved=[QUESTIONS])
    run = Run.open(folder)
    table = probe_table([run])
    assert table
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert (rows[QUESTIONS]["of"], rows[PASSAGES]["of"]) == ("questions", "plain text")
    assert rows[PASSAGES]["its change"] == student(RISE)
    lines = {line["probe"]: line for line in run.importance.measurements if line["step"]}
    for name, row in rows.items():
        shift = lines[name]["shift"]
        assert shift
        ratio = float(np.exp(shift["metrics"]["log_total_ratio"]["value"]))
        assert row["total"].startswith(f"x{ratio:.3g}")
        assert row["loss"] == f"{shift['loss_before']:.3f} → {shift['loss_after']:.3f}"
        assert row["examples"] == str(COUNT)
    assert (rows[QUESTIONS]["p"], rows[QUESTIONS]["peak layer"]) == ("<= 0.00049", "5 → 0")
    assert main(["report", str(folder)]) == 0
    assert "run: Text lost: +0.1" in capsys.readouterr().out
    page = unescape((folder / "report.html").read_text(encoding="utf-8"))
    assert page.index("Text lost: +0.1") < page.index("What training did on each probe")
    several = probe_table([run, run])
    assert several
    assert several.head[0] == "run"


def test_runs_of_earlier_versions_still_say_how_losses_changed(tmp_path: Path) -> None:
    run = Run.open(write_probes(tmp_path / "run", {QUESTIONS: FALL}, written=False))
    table = probe_table([run])
    assert table
    assert table.rows[0][table.head.index("its change")] == student(FALL)
    assert plain_text_finding(run) is None  # they did not know what plain text is

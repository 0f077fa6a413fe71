"""``textkeep watch``: what is read of a directory that grows, and what a terminal shows of it."""

from __future__ import annotations

import csv
import io
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.processes import child_environment, command
from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.runs.metrics import Metrics
from textkeep.runs.watch.fitting import fitted
from textkeep.runs.watch.frame import bars, frame, sparkline
from textkeep.runs.watch.run_view import RunView


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "full", steps=(0, 10, 20), items=12, layers=4)


def shown(view: RunView, width: int = 100, estimator: str | None = None) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(frame(view, estimator, width))
    return console.export_text()


def test_a_frame_tells_progress_losses_scores_and_shift(run: Path) -> None:
    view = RunView(run)
    view.refresh()
    text = shown(view)
    assert "step 20 of 20" in text
    assert "finished" in text
    last = view.evaluations[-1]
    low, high = last["intervals"]["val/text_accuracy"]
    assert f"{100 * last['val/text_accuracy']:.3g} [{100 * low:.3g}, {100 * high:.3g}] %" in text
    line = view.profile("speech", "taylor")[-1]
    js = line["shift"]["metrics"]["js"]
    left = f"without it {js['corrected']:.2g} [{js['low']:.2g}, {js['high']:.2g}]"
    assert f"shift (JS) {js['value']:.2g} (noise alone {js['expected']:.2g}; {left})" in text
    shares = list(line["shares"].values())
    assert f"peak in layer {shares.index(max(shares))}: {100 * max(shares):.3g} %" in text
    for probe in ("indomain_text", "heldout_text", "speech"):
        assert f"{probe}, taylor, step 20" in text
        assert f"{probe}, fisher, step 20" in shown(view, estimator="fisher")
    assert all(len(row) <= 60 for row in shown(view, width=60).splitlines())


def fits(view: RunView, width: int, height: int) -> str:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(fitted(view, None, console))
    return console.export_text()


@pytest.mark.parametrize("layers", [4, 30, 80])
def test_a_small_terminal_gets_all_that_matters(tmp_path: Path, layers: int) -> None:
    view = RunView(write_run(tmp_path / "full", steps=(0, 10, 20), items=12, layers=layers))
    view.refresh()
    text = fits(view, 80, 24)
    assert len(text.splitlines()) <= 24
    for words in ("step 20 of 20", "train/loss", "speech accuracy", "hearing gap", "text loss"):
        assert words in text
    for probe in ("indomain_text", "heldout_text", "speech"):
        shift = view.profile(probe, "taylor")[-1]["shift"]
        js = shift["metrics"]["js"]
        assert re.search(rf"{probe} .*JS {js['value']:.2g} \(p <= {shift['p_floor']:.2g}\)", text)


def test_less_is_shown_the_fewer_rows_there_are(run: Path) -> None:
    view = RunView(run)
    view.refresh()
    heights = (60, 38, 24, 18, 9)
    shown = [fits(view, 80, height) for height in heights]
    assert all(len(text.splitlines()) <= height for text, height in zip(shown, heights, strict=True))
    assert ["peak in layer" in text for text in shown] == [True, True, False, False, False]
    assert ["train/loss" in text for text in shown] == [True, True, True, False, False]
    assert ["text accuracy" in text for text in shown] == [True, True, True, True, False]
    assert all("step 20 of 20" in text and "heldout_text" in text for text in shown)


def test_it_follows_a_run_that_goes_on(run: Path) -> None:
    path = run / "metrics.csv"
    view = RunView(run)
    view.planned = 1000
    view.refresh()
    assert view.state == "running"
    with path.open("a") as file:
        file.write("21,0,1.25,,\n22,0,1.")  # the second line is being written
    os.utime(path, (view.changed + 5, view.changed + 5))
    view.refresh()
    assert view.step == 21
    assert view.run.metrics["train/loss"][-1] == (21, 1.25)
    assert view.pace == pytest.approx(5, rel=0.1)
    assert view.remaining == pytest.approx(5 * 979, rel=0.1)
    assert "of 1000" in shown(view)
    with path.open("a") as file:
        file.write("5,,\n")
    view.refresh()
    assert view.run.metrics["train/loss"][-1] == (22, 1.5)
    os.utime(path, (1, 1))
    for name in ("importance", "evaluation"):
        os.utime(run / name / "summary.jsonl", (1, 1))
    assert view.state == "quiet"


def test_a_rewritten_file_is_read_from_its_start(run: Path) -> None:
    tail = Metrics(run / "metrics.csv")
    tail.read()
    before = len(tail["train/loss"])
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    fresh = run / "new.csv"  # as the logger widens its header: another file, then a rename
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "epoch", "train/loss", "val/speech_ce", "val/text_ce", "late"])
        writer.writeheader()
        writer.writerows([*rows, {"step": 99, "late": 3.5}])
    fresh.replace(run / "metrics.csv")
    tail.read()
    assert len(tail["train/loss"]) == before
    assert tail["late"] == [(99, 3.5)]
    assert tail.last_step == 99


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    view = RunView(write_run(tmp_path / "new", parts=("config",)))
    view.refresh()
    text = shown(view)
    assert "nothing logged yet" in text
    assert "not scored yet" in text
    assert "importance: not measured yet" in text


def test_bars_and_lines_have_the_height_of_their_values() -> None:
    assert bars([0.0, 0.5, 1.0, 0.25], rows=2, cells=1) == ["  █ ", " ██▄"]
    assert bars([1.0], rows=1, cells=3) == ["███"]
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([5.0], 30) == "▁"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--once"], "nothing does not exist; allowed: the directory of a run"),
        (["empty", "--once"], "empty is not a run directory"),
        (["full", "--once", "--estimator", "wanda"], "--estimator wanda: not measured in this run; allowed: taylor"),
        (["full", "--every", "0"], "--every 0: a positive number of seconds"),
    ],
)
def test_bad_input_gives_one_line(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    (run.parent / "empty").mkdir()
    assert main(["watch", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_once_prints_and_ends(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(run), "--once"]) == 0
    assert "step 20 of 20" in capsys.readouterr().out


@pytest.mark.slow
def test_a_terminal_sees_new_steps_until_ctrl_c(run: Path) -> None:
    ours, theirs = pty.openpty()
    environment = child_environment(TERM="xterm-256color", COLUMNS="100", LINES="50")
    child = subprocess.Popen(
        command("watch", run, "--every", "0.2"), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    try:
        assert "step 20 of 20" in _read_until(ours, "step 20 of 20")
        with (run / "metrics.csv").open("a") as file:
            file.write("33,0,1.25,,\n")
        assert "step 33" in _read_until(ours, "step 33")
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        os.close(ours)
        os.close(theirs)


def _read_until(terminal: int, words: str, seconds: float = 60) -> str:
    seen, end = "", time.monotonic() + seconds
    while words not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(terminal, 65536).decode(errors="replace"))
    return seen

"""``textkeep watch``: what is read of a directory that grows, and what a terminal shows of it."""

from __future__ import annotations

import csv
import io
import math
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from tests.support.processes import child_environment, command
from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.foundation.plain_tables import bars, sparkline
from textkeep.foundation.run_names import lock_name
from textkeep.runs.launch import Launch
from textkeep.runs.metrics import Metrics
from textkeep.runs.run_lock import RunLock
from textkeep.runs.watch.fitting import fitted
from textkeep.runs.watch.frame import frame
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
    heights = (60, 38, 24, 17, 9)
    shown = [fits(view, 80, height) for height in heights]
    assert all(len(text.splitlines()) <= height for text, height in zip(shown, heights, strict=True))
    assert ["peak in layer" in text for text in shown] == [True, True, False, False, False]
    assert ["train/loss" in text for text in shown] == [True, True, True, False, False]
    assert ["text accuracy" in text for text in shown] == [True, True, True, True, False]
    assert all("step 20 of 20" in text and "heldout_text" in text for text in shown)


@pytest.fixture
def lock(run: Path) -> Iterator[RunLock]:
    """The lock of the run, held by this process."""
    lock = RunLock(run / lock_name("fit"), Launch.of({}))
    lock.acquire()
    yield lock
    lock.release()


def plan_steps(run: Path, steps: int) -> None:
    """Lets the run be one of so many steps."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["max_steps"] = steps
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def age(run: Path, seconds: float) -> None:
    """Lets all numbers have been written so long ago."""
    for name in ("metrics.csv", "importance/summary.jsonl", "evaluation/summary.jsonl"):
        os.utime(run / name, (time.time() - seconds,) * 2)


def test_it_follows_a_run_that_goes_on(run: Path, lock: RunLock) -> None:
    plan_steps(run, 1000)
    path = run / "metrics.csv"
    view = RunView(run)
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
    age(run, 10_000)
    assert view.state == "quiet"
    lock.release()
    assert view.state == "stopped"
    assert "no process writes here" in shown(view)


def test_the_pace_of_a_resumed_run_is_that_of_its_last_process(run: Path, lock: RunLock) -> None:
    """It went on from step 12, 160 seconds before the last number of step 20 was written: 20 seconds a step."""
    plan_steps(run, 40)
    age(run, 0)
    began = time.time() - 160
    (run / "checkpoints").mkdir()
    for step, seconds in ((4, 900), (12, 500), (16, 80)):  # the last is its own
        file = run / f"checkpoints/step={step:06d}.ckpt"
        file.touch()
        os.utime(file, (time.time() - seconds,) * 2)
    text = lock.path.read_text()
    lock.path.write_text(re.sub(r"since=\d+", f"since={began:.0f}", text))
    view = RunView(run)
    view.refresh()
    assert view.pace == pytest.approx(20, rel=0.05)
    assert "20 s/step" in shown(view)
    assert view.remaining == pytest.approx(20 * 20, rel=0.05)


def test_a_run_that_is_resumed_while_it_is_watched_begins_its_pace_anew(run: Path, lock: RunLock) -> None:
    view, path = RunView(run), run / "metrics.csv"
    for stale in ("importance", "evaluation"):  # what a fit forgets that goes on from step 0
        (run / stale / "summary.jsonl").unlink()
    view.refresh()
    header, *rows = path.read_text().splitlines()
    for count, seconds in ((3, 1000), (5, 1014)):
        path.write_text("\n".join([header, *rows[:count]]) + "\n")
        os.utime(path, (seconds, seconds))
        view.refresh()
    taken = int(rows[4].split(",")[0]) - int(rows[2].split(",")[0])
    assert view.pace == pytest.approx(14 / taken)
    plan_steps(run, 77)
    view.refresh()
    assert "of 77" in shown(view)


def test_a_copy_of_a_run_is_not_taken_for_the_run(run: Path, lock: RunLock) -> None:
    plan_steps(run, 1000)
    copy = run.with_name("copy")
    shutil.copytree(run, copy)  # its files are as old as the running run's
    view = RunView(copy)
    view.refresh()
    assert (view.state, view.pace, view.remaining) == ("stopped", None, None)
    assert "no process writes here" in shown(view)
    assert "ago" not in shown(view)
    with (copy / "metrics.csv").open("a") as file:  # it is a mirror that is kept up to date
        file.write("21,0,1.25,,\n")
    view.refresh()
    assert view.state == "running"
    (copy / "finished.json").write_text('{"step": 21}')
    lock.release()
    (copy / lock.path.name).unlink()
    view.refresh()
    assert view.state == "finished"


def test_a_killed_run_is_not_running(run: Path, lock: RunLock) -> None:
    plan_steps(run, 1000)
    text = lock.path.read_text()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock.path.write_text(re.sub(r"pid=\d+", f"pid={ended.pid}", text))
    view = RunView(run)
    view.refresh()
    assert view.state == "stopped"


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
    assert bars([math.nan, 1.0, math.inf], rows=2, cells=2) == ["  ██  ", "✗✗██✗✗"]
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
    told = capsys.readouterr().out
    assert "step 20 of 20" in told
    assert "━" not in told  # the bar of a terminal: in a file what is done looks like what is left


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

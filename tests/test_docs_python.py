"""The programs of docs/python.md run as they stand, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.measured_runs import MeasuredRun
from tests.support.report_run import write_run
from textkeep.runs import Run

PAGE = (Path(__file__).resolve().parents[1] / "docs/python.md").read_text(encoding="utf-8")
ASK, MEASURE, READ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(program: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    exec(program, {})
    return capsys.readouterr().out


def test_a_model_is_asked(measured_run: MeasuredRun, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "outputs/quickstart").symlink_to(measured_run("full"))
    soundfile.write(here / "question.wav", 0.1 * np.random.default_rng(0).standard_normal(9000), 16000)
    first, *_, loss = printed(ASK, capsys).splitlines()
    assert first == "<outputs/quickstart: SpeechLLM on cpu, step 3>"
    assert 0 < float(loss.removesuffix(" nats a token")) < 20


def test_a_plain_model_is_measured(tiny_llm_dir: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "HuggingFaceTB").mkdir()
    (here / "HuggingFaceTB/SmolLM2-135M-Instruct").symlink_to(tiny_llm_dir)
    lines = printed(MEASURE, capsys).splitlines()
    assert re.fullmatch(r"probe, step 0: 2 examples, loss [\d.]+ nats a token", lines[0])
    assert lines[1].split("  ")[1].strip() == "estimator"
    assert lines[1].endswith("layers 0 to 1")
    assert [line.split()[0] for line in lines[2:5]] == ["taylor", "fisher", "signed_taylor"]
    assert all(re.fullmatch(r"  \w+ +\S+  layer_\d\d [\d.]+ % +[▁-█ ]{1,2}", line) for line in lines[2:5])
    assert lines[5].startswith("taylor: 2 examples, loss ")
    assert [line.split()[0] for line in lines[7:]][:2] == ["js", "wasserstein"]


def test_a_run_is_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(write_run(here / "outputs/quickstart", steps=(0, 10, 20), items=12, layers=4))
    first, loss, scores, js, *table = printed(READ, capsys).splitlines()
    assert first.startswith("<outputs/quickstart: step 20 of 20; ")
    assert "importance of 3 probes" in first
    assert loss == str(run.metrics["train/loss"][-1])
    assert scores == str(run.evaluations["val"].series("text_accuracy"))
    assert js.startswith("{'value': ")
    shares = run.importance.snapshot("heldout_text", 0).shares("taylor")  # type: ignore[union-attr]
    peak = max(shares, key=shares.__getitem__)
    assert table[0].startswith("heldout_text, step 0: 32 examples, loss ")
    (row,) = [line for line in table if line.startswith("  taylor ")]
    assert f"  {peak} {100 * shares[peak]:.3g} %" in row

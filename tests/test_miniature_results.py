"""What docs/results/study.md and the README say of the packed study is what its report computes (slow)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from textkeep.runs.report.estimates import adjusted, difference
from textkeep.runs.report.study_data import StudyData, load_study
from textkeep.runs.report.study_page import StudyReport
from textkeep.runs.report.study_run import Measure
from textkeep.runs.study.archive import unpack

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/results/study.md").read_text(encoding="utf-8")
MANUAL, T2T, S2T = Measure("manual", "text", "loss"), Measure("", "text"), Measure("", "speech")
ARMS = {
    "EWC": "ewc",
    "L2-SP": "l2sp",
    "full": "full",
    "uniform": "layer_rates_uniform",
    "replay": "replay",
    "distillation": "distillation",
    "self-generated": "self_generated",
    "LoRA, r = 8": "lora_r8",
    "LoRA, r = 64": "lora_r64",
    "LoRA + rates": "lora_layer_rates",
    "gated LoRA": "lora_gated",
    "layer-wise": "layer_rates",
    "reversed": "layer_rates_reversed",
    "permuted": "layer_rates_permuted",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study") / "miniature"
    unpack(ROOT / "docs/results/study/miniature.tar.xz", place)
    return place


@pytest.fixture(scope="module")
def data(folder: Path) -> StudyData:
    return load_study(folder)


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+\.?\d*", cell)]


def test_the_contrasts_are_those_of_the_runs(data: StudyData) -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines()]
    shown = {row[0]: row[1:] for row in rows if len(row) == 8 and " - " in row[0] and row[1] in "13"}
    names = {label: tuple(ARMS[arm] for arm in label.split(" - ")) for label in shown}
    assert set(names.values()) == set(data.study.contrasts)
    for measure, place in ((MANUAL, 1), (T2T, 5), (S2T, 6)):
        sides = [[data.arm(name).by_seed(measure) for name in pair] for pair in names.values()]  # type: ignore[union-attr]
        found = [difference(*side, measure) for side in sides]
        for (label, cells), result, holm in zip(shown.items(), found, adjusted(found), strict=True):
            expected = [measure.scale * part for part in result[:3]]
            digits = len(re.search(r"\d\.(\d+)", cells[place])[1])  # type: ignore[index]
            assert numbers(cells[place]) == pytest.approx(expected, abs=0.51 * 10**-digits), (label, measure)
            assert cells[0] == str(result.seeds)
            if measure == MANUAL:
                for cell, p in ((cells[2], result.p_value), (cells[3], holm)):
                    assert (p < 1e-4) if cell.startswith("<") else float(cell) == pytest.approx(p, rel=0.06), label


def test_every_run_shifted_and_so_many_lie_beyond_the_scale(data: StudyData) -> None:
    beyond = {}
    for probe in ("heldout_text", "indomain_text"):
        runs = [run for arm in data.trained if arm.name != "lora_gated" for run in arm.runs.values()]
        tests = [run.paired_p((probe, "taylor")) for run in runs]
        shifts = [run.shift((probe, "taylor"))["metrics"]["js"] for run in runs]  # type: ignore[index]
        assert all(test is not None and test.shifted for test in tests)
        beyond[probe] = sum(js["low"] > js["null_p95"] for js in shifts)
        assert len(runs) == 31
    assert beyond == {"heldout_text": 23, "indomain_text": 9}
    told = " ".join(TEXT.split())
    assert "in 31 of 31 runs, on held-out text and on text of the training domain alike" in told
    assert "On held-out text 23 of 31 runs lie beyond that scale" in told
    assert "In-domain 9 of 31 do." in told


def test_the_page_is_as_small_as_the_docs_say(folder: Path, tmp_path: Path) -> None:
    StudyReport(folder).write(tmp_path / "report.html")
    told = re.search(r"one file of under (\d+) MB", " ".join((ROOT / "docs" / "studies.md").read_text().split()))
    assert told is not None
    assert (tmp_path / "report.html").stat().st_size < 1e6 * float(told[1])

"""Frontier, slider, structure, removal test, clips and flipped questions of a report, against what the run wrote."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runs.test_report import figures_of
from tests.support.report_run import KINDS, write_removal, write_run
from textkeep.cli.main import main
from textkeep.importance import Snapshot
from textkeep.importance.summary import SummaryFile
from textkeep.runs import Run
from textkeep.runs.report.clips import Clips
from textkeep.runs.report.figures.concentration import concentration
from textkeep.runs.report.figures.figure import Drawing, Figure
from textkeep.runs.report.figures.frontier import frontier
from textkeep.runs.report.figures.kinds import kinds
from textkeep.runs.report.figures.profile import profile
from textkeep.runs.report.figures.removal import removal
from textkeep.runs.report.flips import flipped_questions, flips

PROBES = ("indomain_text", "heldout_text", "speech")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("parts") / "full", steps=(0, 10, 20), items=40, layers=4)


@pytest.fixture
def run(folder: Path) -> Run:
    return Run.open(folder)


def drawn(figure: Figure | None) -> Mapping[str, Drawing]:
    assert figure is not None
    return figure.drawn


def test_the_frontier_goes_from_the_start_to_the_end_with_intervals(run: Run) -> None:
    evaluation, found = run.evaluations["val"], drawn(frontier([run]))
    path, end = found["val|accuracy"]["data"]
    assert path["x"] == pytest.approx([100 * value for _, value, _, _ in evaluation.series("text_accuracy")], rel=1e-4)
    assert path["y"] == pytest.approx(
        [100 * value for _, value, _, _ in evaluation.series("speech_accuracy")], rel=1e-4
    )
    assert path["text"] == ["step 0", "", "step 20"]
    _, value, low, high = evaluation.series("text_accuracy")[-1]
    assert end["error_x"]["arrayminus"] == pytest.approx([100 * (value - low)], rel=1e-3)
    assert end["error_x"]["array"] == pytest.approx([100 * (high - value)], rel=1e-3)
    assert set(found) == {"val|accuracy", "val|loss"}


def test_divergences_have_a_frontier_where_they_were_logged(folder: Path, tmp_path: Path) -> None:
    logged = Path(shutil.copytree(folder, tmp_path / "kl"))
    (logged / "metrics.csv").write_text("step,forgetting/kl,misalignment/kl\n10,0.1,0.5\n20,0.2,0.3\n")
    path = drawn(frontier([Run.open(logged)]))["val|kl"]["data"][0]
    assert (path["x"], path["y"]) == ([0.1, 0.2], [0.5, 0.3])


def test_the_slider_has_every_measurement_of_the_profile(run: Run) -> None:
    start, shown = drawn(profile([run]))["speech|taylor"]["data"]
    assert shown["meta"]["steps"] == [0, 10, 20]
    for shares, line in zip(shown["meta"]["shares"], run.importance.of("speech", "taylor"), strict=True):
        assert shares == pytest.approx([100 * share for share in line["shares"].values()], rel=1e-4)
    assert start["y"] == shown["meta"]["shares"][0]
    assert "meta" not in start


def test_structure_figures_show_kinds_and_concentration(run: Run) -> None:
    before, after = drawn(kinds([run]))["speech|taylor"]["data"]
    shares = {kind: 100 * share for kind, share in run.importance.of("speech", "taylor")[-1]["kinds"].items()}
    assert dict(zip(after["x"], after["y"], strict=True)) == pytest.approx(shares, rel=1e-4)
    assert before["name"] == "step 0"
    snapshot = Snapshot.load(run.path / "importance/speech/step=000020")
    traces = {trace["name"]: trace["y"] for trace in drawn(concentration([run]))["speech|taylor"]["data"]}
    for name, sums in (("rows (outputs), step 20", snapshot.rows), ("columns (inputs), step 20", snapshot.columns)):
        for layer in range(snapshot.layers):
            here = [v for v, m in zip(sums["taylor"], snapshot.table, strict=True) if m.layer == layer]
            # Gini as half the relative mean absolute difference: another formula than the package's.
            by_pairs = [abs(v[:, None] - v[None, :]).mean() / (2 * v.mean()) for v in here]
            assert traces[name][layer] == pytest.approx(np.mean(by_pairs), rel=1e-4)


def test_a_removal_test_beside_the_snapshots_is_shown(folder: Path, run: Run, tmp_path: Path) -> None:
    assert removal([run]) is None
    tested = Path(shutil.copytree(folder, tmp_path / "tested"))
    write_removal(tested)
    found = drawn(removal([Run.open(tested)]))
    bars = found["3 % of the weights off, by taylor, chosen per matrix"]["data"]
    assert [(bar["name"], bar["y"]) for bar in bars] == [("top", [3.0]), ("random", [0.5]), ("bottom", [0.01])]
    assert bars[0]["error_y"]["array"] == pytest.approx([0.2])
    (tested / "importance/removal.json").write_text("{}")
    assert "importance/removal.json could not be read" in "\n".join(Run.open(tested).notes)


@pytest.mark.slow
def test_a_large_run_stays_under_five_megabytes(tmp_path: Path) -> None:
    steps = tuple(range(0, 500, 10))
    large = write_run(
        tmp_path / "large", steps=(0, steps[-1]), items=100, layers=32
    )  # the structure needs the snapshots of both ends
    write_removal(large)
    shares = {f"layer_{i:02d}": 1 / (i + 3.7) for i in range(32)}
    estimate = {"value": 0.123456, "low": 0.1, "high": 0.2, "null": 0.05, "null_p95": 0.0789}
    names = ("js", "wasserstein", "centre_move", "peak_move", "log_total_ratio", "spearman")
    ends = {"total_before": 1.0, "total_after": 2.0, "loss_before": 1.0, "loss_after": 2.0}
    peaks = {"peak_before": "layer_00", "peak_after": "layer_01"}
    shift = {"metrics": dict.fromkeys(names, estimate), "layers": dict.fromkeys(shares, estimate), **ends, **peaks}
    line = {"loss": 1.0, "total": 1.0, "shares": shares, "kinds": dict.fromkeys(KINDS, 1 / 7), "shift": shift}
    pairs = [(probe, estimator) for probe in PROBES for estimator in ("taylor", "fisher", "signed_taylor")]
    lines = [{"step": s, "probe": p, "estimator": e, **line} for s in steps for p, e in pairs]
    SummaryFile(large / "importance/summary.jsonl").write(lines)
    assert main(["report", str(large)]) == 0
    assert 2e6 < (large / "report.html").stat().st_size < 5e6
    found = figures_of(large / "report.html")
    assert {"frontier", "heat-0", "profile", "ratio", "shift", "kinds", "gini", "removal", "training"} <= set(found)
    assert set(found["gini"]) == {f"{probe}|{estimator}" for probe in PROBES for estimator in ("taylor", "fisher")}


def spoken(folder: Path, seconds: float = 1.0) -> str:
    """A manifest with clips for the first three items of a written run."""
    folder.mkdir()
    lines = []
    for number in range(3):
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(16000 * seconds))
        soundfile.write(folder / f"{number}.wav", noise, 16000)
        lines.append({"id": f"q{number:03d}", "question": "?", "answers": ["a"], "audio": f"{number}.wav"})
    path = folder / "val.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_small_clips_are_packed_into_the_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = run.config["data"]
    data["val"] = [spoken(tmp_path / "a")]
    found = Clips().of(run, "val", ["q001", "q000", "q099"])
    assert list(found) == ["q001", "q000"]
    head, text = found["q001"].split(",")
    assert head == "data:audio/ogg;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
    assert (len(samples), rate) == (16000, 16000)
    monkeypatch.setattr("textkeep.runs.report.clips.BUDGET", len(found["q001"]))
    assert list(Clips().of(run, "val", ["q001", "q000"])) == ["q001"]
    data["val"] = [spoken(tmp_path / "b", seconds=25)]
    assert Clips().of(run, "val", ["q000"]) == {}
    for missing in (str(tmp_path / "gone.jsonl"), {"class_path": "HFDataset"}, None):
        data["val"] = missing
        assert Clips().of(run, "val", ["q000"]) == {}


def test_a_flipped_question_shows_both_modalities(run: Run) -> None:
    evaluation = run.evaluations["val"]
    found = flipped_questions(evaluation)
    assert found
    assert {q.id for q in found} == {flip.after.id for flip in flips(evaluation)}
    kinds_of = {(True, False): "lost", (False, True): "gained"}
    for question in found:
        assert set(question.before) == set(question.after) == {"speech", "text"}
        for modality, kind in question.kinds.items():
            right = bool(question.before[modality].correct), bool(question.after[modality].correct)
            assert kinds_of.get(right, "same") == kind
    assert main(["report", str(run.path)]) == 0
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert text.count('<td class="lost" ') == sum(list(q.kinds.values()).count("lost") for q in found)
    assert 'data-steps="0 10 20"' in text

"""Shift, correlation, overlap, grids and heat maps of a study against the files that they come from."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.support.study_runs import LAYERS, write_study
from textkeep.cli.main import main
from textkeep.evaluation import correlation
from textkeep.importance import Snapshot
from textkeep.runs.report.figures.figure import OWN, Drawing, Figure
from textkeep.runs.report.figures.frontier_by_arm import frontier_by_arm
from textkeep.runs.report.figures.importance_change import importance_by_arm, importance_by_kind
from textkeep.runs.report.figures.overlap import overlap
from textkeep.runs.report.figures.profile_by_arm import profile_by_arm
from textkeep.runs.report.figures.shift_and_loss import shift_and_loss
from textkeep.runs.report.figures.shift_by_arm import shift_by_arm
from textkeep.runs.report.figures.weight_change import change_by_arm, change_by_kind
from textkeep.runs.report.study_data import StudyData, load_study
from textkeep.runs.report.tables.grid import grid_table
from textkeep.runs.report.tables.missing import missing_table
from textkeep.runs.report.tables.overlap import overlap_table
from textkeep.runs.report.tables.removal import removal_table
from textkeep.runs.report.tables.shift import shift_table
from textkeep.runs.report.tables.shift_and_loss import correlation_table

RUNS = ["full/seed=0", "full/seed=1", "lora,lr=1/seed=0", "lora,lr=2/seed=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "s")


@pytest.fixture(scope="module")
def data(folder: Path) -> StudyData:
    return load_study(folder)


def shift(run: Path, probe: str = "heldout_text") -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "importance/summary.jsonl").read_text().splitlines()]
    found = next(x for x in lines if (x["step"], x["probe"], x["estimator"]) == (30, probe, "taylor"))
    return found["shift"]


def drawn(figure: Figure | None) -> Mapping[str, Drawing]:
    """The drawings of a figure, by what its selection offers."""
    assert figure is not None
    assert list(figure.choices.get(OWN, {"": ""})) == list(figure.drawn)
    return figure.drawn


def change(run: Path) -> dict[str, Any]:
    return json.loads((run / "weight_change.json").read_text())


def test_the_shift_has_students_interval_over_seeds(data: StudyData, folder: Path) -> None:
    table = shift_table(data)
    assert table is not None
    row = next(row for row in table.rows if row[:3] == ["full", "heldout_text", "taylor"])
    shifts = [shift(folder / "runs" / place) for place in RUNS[:2]]
    js = [s["metrics"]["js"]["value"] for s in shifts]
    limits = stats.ttest_1samp(js, 0.0).confidence_interval(0.95)
    assert row[3] == f"{np.mean(js):.3g} [{limits.low:.3g}, {limits.high:.3g}]"
    assert row[4] == f"{np.mean([s['metrics']['js']['expected'] for s in shifts]):.2g}"
    assert row[5] == f"2 of 2, p <= {shifts[0]['p_floor']:.2g}"
    beyond = sum(s["metrics"]["js"]["low"] > s["metrics"]["js"]["null_p95"] for s in shifts)
    assert row[7] == f"{beyond} of 2"
    before, after = (int(shifts[0][f"peak_{side}"][-2:]) for side in ("before", "after"))
    assert row[8].startswith(f"{before} to {after}")
    ratios = [np.log(s["total_after"] / s["total_before"]) for s in shifts]
    assert row[9].startswith(f"{np.mean(ratios):+.3g} [")
    single = next(row for row in table.rows if row[:3] == ["lora", "heldout_text", "taylor"])
    assert "[" not in single[3]  # one seed has no interval over seeds
    found = drawn(shift_by_arm(data))
    assert list(found) == [", ".join(pair) for pair in data.pairs]
    mean, runs = found["heldout_text, taylor"]["data"][:2]
    assert mean["y"] == pytest.approx([np.mean(js)], rel=1e-4)
    assert mean["error_y"]["arrayminus"] == pytest.approx([np.mean(js) - max(0.0, limits.low)], rel=1e-3)
    assert runs["y"] == pytest.approx(js, rel=1e-4)


def test_runs_of_earlier_versions_are_tested_from_their_snapshots(folder: Path, tmp_path: Path) -> None:
    """Their summaries hold no paired test; where the snapshots are gone too, none is made up."""
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    for summary in old.glob("runs/**/importance/summary.jsonl"):
        lines = [json.loads(line) for line in summary.read_text().splitlines()]
        for line in lines:
            for key in ("p_floor", "untested"):
                (line["shift"] or {}).pop(key, None)
            for metric in (line["shift"] or {"metrics": {}})["metrics"].values():
                metric.pop("p")
        summary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tables = [shift_table(load_study(place)) for place in (folder, old)]
    assert tables[0] is not None
    assert tables[1] is not None
    counts = [[row[5].split(",")[0] for row in table.rows] for table in tables if table is not None]
    assert counts[0] == counts[1]
    assert {row[5] for row in tables[1].rows if "taylor" in row} == {"2 of 2, p <= 0.0002", "1 of 1, p <= 0.0002"}
    for stats_file in old.glob("runs/**/stats.safetensors"):
        stats_file.unlink()
    without = shift_table(load_study(old))
    assert without is not None
    assert {row[5] for row in without.rows} == {"not tested"}


def test_the_interval_of_a_distance_over_seeds_stays_within_its_bounds(data: StudyData, folder: Path) -> None:
    runs = next(arm for arm in data.trained if arm.name == "full").runs
    pair = ("heldout_text", "taylor")
    last = [run.last[pair] for run in runs.values()]
    kept = [copy.deepcopy(line) for line in last]
    try:
        for line, value in zip(last, (0.01, 0.9), strict=True):
            line["shift"]["metrics"]["js"]["value"] = value
        table = shift_table(data)
        assert table is not None
        assert next(row for row in table.rows if row[:3] == ["full", *pair])[3] == "0.455 [0, 1]"
    finally:
        for line, before in zip(last, kept, strict=True):
            line.update(before)


def test_correlations_are_over_all_runs_those_not_chosen_too(data: StudyData, folder: Path) -> None:
    table = correlation_table(data)
    assert table is not None
    row = next(r for r in table.rows if r[:2] == ["JS distance, heldout_text", "prose loss lost, nats per token"])
    x = [shift(folder / "runs" / place)["metrics"]["js"]["value"] for place in RUNS]
    y = [1.02, 1.04, 0.16, 0.18]  # what the fixture added to every text
    assert row[2] == "4"
    assert row[3].startswith(f"{stats.spearmanr(x, y).statistic:+.3g} [")
    assert row[4].startswith(f"{stats.pearsonr(x, y).statistic:+.3g} [")
    assert row[5].startswith(f"{correlation(x, y, groups=['full', 'full', 'lora', 'lora']).estimate:+.3g} [")
    assert next(r[2] for r in table.rows if r[1].startswith("T2T")) == "3"  # validation questions are others
    assert {r[1].split(" lost")[0] for r in table.rows if "gained" not in r[1]} == {"T2T", "prose loss"}
    found = drawn(shift_and_loss(data))
    assert len(found) == len(table.rows)
    first = next(iter(found.values()))["data"]
    assert [(trace["name"], len(trace["x"])) for trace in first] == [("full", 2), ("lora", 1)]
    part = found["prose loss lost, nats per token against JS distance, heldout_text"]["data"]
    assert {t["name"]: list(t["x"]) for t in part} == {
        "full": pytest.approx(x[:2], rel=1e-3),
        "lora": pytest.approx(x[2:], rel=1e-3),
    }
    assert {t["name"]: list(t["y"]) for t in part} == {
        "full": pytest.approx(y[:2], rel=1e-3),
        "lora": pytest.approx(y[2:], rel=1e-3),
    }


def test_every_point_of_a_grid_is_listed_and_every_missing_run_is_named(data: StudyData) -> None:
    grid, missing = grid_table(data), missing_table(data)
    assert grid is not None
    assert grid.head[4:] == ["prose loss, against untouched"]
    assert grid.rows == [  # the losses of write_study differ by the same at every item, so the intervals are points
        ["lora", "m.lr = 1", "0.4", "", "+0.16 [0.16, 0.16]"],
        ["lora", "m.lr = 2", "0.5", "taken", "+0.18 [0.18, 0.18]"],
        ["lora", "m.lr = 3", "-", "pending", "-"],
    ]
    assert missing is not None
    assert sorted(missing.rows) == [["lora,lr=2,seed=1", "failed", "it burnt"], ["lora,lr=3,seed=0", "pending", "-"]]


def test_an_arm_that_is_not_tested_yet_does_not_change_the_colours_of_the_others(data: StudyData) -> None:
    early = replace(data.runs[0], arm="early", variant="early")
    both = (shift_and_loss(data), shift_and_loss(replace(data, runs=[early, *data.runs])))
    before, after = (
        {trace["name"]: trace["marker"]["color"] for one in drawn(figure).values() for trace in one["data"]}
        for figure in both
    )
    assert before == {name: after[name] for name in before}
    assert after["early"] not in before.values()


def heard(run: Path) -> float:
    """Percent of the spoken test questions that a run got right."""
    lines = [json.loads(line) for line in (run / "evaluation/test/step=000030.jsonl").read_text().splitlines()]
    return 100 * float(np.mean([line["correct"] for line in lines if line["modality"] == "speech"]))


def test_the_frontier_offers_all_text_measures_with_better_to_the_right(data: StudyData, folder: Path) -> None:
    found = drawn(frontier_by_arm(data))
    assert list(found) == ["T2T", "prose loss"]
    assert [one["layout"]["xaxis"]["autorange"] for one in found.values()] == [True, "reversed"]
    prose = {trace["name"]: trace for trace in found["prose loss"]["data"]}
    full, lora = prose["full"], prose["lora"]
    assert full["x"][0] == pytest.approx(1.03)
    assert lora["x"][0] == pytest.approx(0.18)
    spread = stats.t.ppf(0.975, 1) * np.std([1.02, 1.04], ddof=1) / 2**0.5  # every item lost the same
    assert full["error_x"]["array"][0] == full["error_x"]["arrayminus"][0] == pytest.approx(spread, rel=1e-3)
    assert lora["error_x"]["array"][0] == lora["error_x"]["arrayminus"][0] == pytest.approx(0, abs=1e-9)
    assert full["y"][0] == pytest.approx(np.mean([heard(folder / "runs" / place) for place in RUNS[:2]]), rel=1e-3)
    assert lora["y"][0] == pytest.approx(heard(folder / "runs" / RUNS[3]), rel=1e-3)
    assert full["error_y"]["array"][0] > lora["error_y"]["array"][0] > 0  # seeds differ too


def test_profiles_are_the_shares_at_the_end(data: StudyData, folder: Path) -> None:
    lines = {trace["name"]: list(trace["y"]) for trace in drawn(profile_by_arm(data))["heldout_text, taylor"]["data"]}
    assert list(lines) == ["untouched", "full", "lora"]

    def ends(step: int, places: list[str]) -> list[float]:
        found = [Snapshot.load(folder / "runs" / p / f"importance/heldout_text/step={step:06d}") for p in places]
        return list(np.mean([list(snapshot.shares("taylor").values()) for snapshot in found], axis=0))

    assert lines["untouched"] == pytest.approx(ends(0, RUNS[:1]), rel=1e-3)
    assert lines["full"] == pytest.approx(ends(30, RUNS[:2]), rel=1e-3)
    assert lines["lora"] == pytest.approx(ends(30, RUNS[3:]), rel=1e-3)


def test_the_heat_map_of_importance_is_the_difference_of_the_shares(data: StudyData, folder: Path) -> None:
    (heat,) = drawn(importance_by_arm(data))["heldout_text, taylor"]["data"]
    assert heat["x"] == ["full", "lora"]
    places = [folder / "runs" / place / "importance/heldout_text" for place in RUNS[:2]]
    ends = [[Snapshot.load(place / f"step={step:06d}") for step in (0, 30)] for place in places]
    for layer in range(LAYERS):
        name = f"layer_{layer:02d}"
        expected = np.mean([after.shares("taylor")[name] - before.shares("taylor")[name] for before, after in ends])
        assert heat["z"][layer][0] == pytest.approx(expected, rel=1e-4)
    assert heat["zmin"] == -heat["zmax"]
    (part,) = drawn(importance_by_kind(data))["full; heldout_text, taylor"]["data"]
    name = f"model.layers.2.{part['x'][3]}"
    expected = np.mean([b.shares("taylor", "matrix")[name] - a.shares("taylor", "matrix")[name] for a, b in ends])
    assert part["z"][2][3] == pytest.approx(expected, rel=1e-4)


def test_the_heat_map_of_the_weights_is_the_relative_norm(data: StudyData, folder: Path) -> None:
    (arms,) = drawn(change_by_arm(data))[""]["data"]
    (heat,) = drawn(change_by_kind(data))["full"]["data"]
    runs = [change(folder / "runs" / place)["matrices"] for place in RUNS[:2]]
    expected = []
    for run in runs:
        inside = [m for m in run if m["layer"] == 1]
        expected.append((sum(m["norm"] ** 2 for m in inside) / sum(m["base_norm"] ** 2 for m in inside)) ** 0.5)
    assert arms["z"][1][0] == pytest.approx(np.log10(np.mean(expected)), rel=1e-4)
    assert heat["z"][0][0] is None  # q of the first layer did not move
    last = np.mean([r[-1]["norm"] / r[-1]["base_norm"] for r in runs])
    assert heat["z"][3][6] == pytest.approx(np.log10(last), rel=1e-4)


def test_overlap_stands_beside_shuffles_and_random_adapters(data: StudyData, folder: Path) -> None:
    table = overlap_table(data)
    assert table is not None
    rows = {(row[0], row[2]): row for row in table.rows}
    lora = change(folder / "runs" / RUNS[3])["overlap"]["heldout_text"]["matrices"]
    actual = [m["rows"]["spearman"] for m in lora]
    above = np.mean([m["rows"]["spearman"] - m["rows"]["random_median"] for m in lora])
    row = rows["lora", "rows"]
    assert row[3].startswith(f"{np.mean(actual):+.3g} [")
    assert row[4] == f"{sum(a > 0.2 for a in actual)} of {len(actual)}"
    assert row[6].startswith(f"{above:+.3g} [")
    assert float(row[6].split("[")[1].split(",")[0]) > 0.3
    low, high = rows["lora", "columns"][6].split("[")[1].rstrip("]").split(",")
    assert float(low) < 0 < float(high)  # nothing there
    assert rows["full", "rows"][5:] == ["-", "-"]
    traces = drawn(overlap(data))["heldout_text, rows"]["data"]
    points = {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in traces}
    assert points["lora"]["lora"] == pytest.approx(np.mean(actual), rel=1e-4)
    median = np.mean([m["rows"]["random_median"] for m in lora])
    assert points["random adapters"] == pytest.approx({"lora": median}, rel=1e-4)
    assert set(points["shuffled lines, 95 %"]) == {"full", "lora"}


def test_removal_tests_of_the_runs_are_shown(data: StudyData) -> None:
    table = removal_table(data)
    assert table is not None
    assert table.rows[0] == ["full, seed 0", "3 %, taylor, per matrix", "general, text", "top", "1e+05", "+9 [8, 10]"]
    assert len(table.rows) == 2


def test_a_packed_study_gives_the_same_tables_and_figures(
    folder: Path, data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(folder), "--pack", "s.tar.xz"]) == 0
    assert main(["study", "copy", "--unpack", "s.tar.xz"]) == 0
    copy = load_study(Path("copy"))
    for make in (shift_table, correlation_table, overlap_table, removal_table, grid_table, missing_table):
        assert make(copy) == make(data)
    for draw in (frontier_by_arm, importance_by_arm, importance_by_kind, change_by_kind):
        assert drawn(draw(copy)) == drawn(draw(data))


def test_the_profile_is_the_mean_over_seeds_beside_the_untouched_llm(data: StudyData, folder: Path) -> None:
    found = drawn(profile_by_arm(data))
    assert list(found) == [", ".join(pair) for pair in data.pairs]
    places = [folder / "runs" / place / "importance/speech" for place in RUNS[:2]]
    ends = [[Snapshot.load(place / f"step={step:06d}").shares("taylor") for step in (0, 30)] for place in places]
    untouched, full = found["speech, taylor"]["data"][:2]
    assert (untouched["name"], full["name"]) == ("untouched", "full")
    assert untouched["y"] == pytest.approx(list(ends[0][0].values()), rel=1e-4)
    assert full["y"] == pytest.approx(np.mean([list(end.values()) for _, end in ends], axis=0), rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_figures_are_written_as_files(folder: Path, tmp_path: Path) -> None:
    assert main(["report", str(folder), "-o", str(tmp_path / "page.html"), "--figures", str(tmp_path / "figures")]) == 0
    files = {file.name: file.read_text() for file in (tmp_path / "figures").iterdir()}
    assert {"shift-beside-its-scale.heldout-text-taylor.svg", "text-kept-against-speech-gained.t2t.svg"} <= set(files)
    assert all(text.lstrip().startswith("<svg") for text in files.values())


def test_figures_of_runs_that_are_no_study_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path), "--figures", str(tmp_path / "figures")])
    assert "--figures: only of a study" in capsys.readouterr().err


def test_without_a_browser_figures_are_refused_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("\nKaleido requires Google Chrome.\n")

    monkeypatch.setattr("plotly.io.write_images", fail)
    assert main(["report", str(folder), "-o", str(tmp_path / "page.html"), "--figures", str(tmp_path / "f")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Kaleido requires Google Chrome. (allowed: kaleido and a Chrome or Chromium" in line
    assert list((tmp_path / "f").iterdir()) == []


def test_the_point_that_is_being_tested_stays_the_one_that_was_taken(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    state = folder / "state/lora,lr=2,seed=0.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "status": "running", "tested": False}))
    data = load_study(folder)
    assert [point["m.lr"] for point, _ in data.grids["lora"]] == [2, 1]
    assert "lora: 0 of 2 runs are finished" in data.notes

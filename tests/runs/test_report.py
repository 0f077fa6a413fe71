from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.evaluation import Prediction, read_predictions, store_evaluation
from textkeep.runs import Run, open_runs
from textkeep.runs.measurements import with_limits
from textkeep.runs.report.figures.accuracy import accuracy
from textkeep.runs.report.figures.answer_loss import answer_loss
from textkeep.runs.report.figures.figure import rounded
from textkeep.runs.report.figures.hearing_gap import hearing_gap
from textkeep.runs.report.figures.layer_ratio import layer_ratio
from textkeep.runs.report.figures.probe_loss import probe_loss
from textkeep.runs.report.figures.profile import profile
from textkeep.runs.report.figures.shift import shift
from textkeep.runs.report.flips import flips
from textkeep.runs.report.page import coded
from textkeep.runs.report.tables.paired_differences import paired_table
from textkeep.runs.report.tables.probes import probe_table
from textkeep.runs.report.tables.settings import config_difference, flatten
from textkeep.runs.report.verdict import headline, verdict

STEPS = (0, 10, 20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "full", steps=STEPS, items=40, layers=4)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "lora", steps=STEPS, items=40, layers=4, harm=0.1, seed=1)


def figures_of(page: Path) -> dict[str, Any]:
    """The data that the page draws."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_the_page_holds_all_figures_and_nothing_from_the_network(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    page = run / "report.html"
    assert str(page) in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 5e6
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(""", text)
    assert "default-src 'none'" in text
    figures = figures_of(page)
    assert set(figures) == {
        "frontier", "accuracy", "answer-loss", "hearing", "heat-0", "profile", "ratio", "shift", "probe-loss",
        "probe-shares", "kinds", "gini", "training",
    }  # fmt: skip
    # Every place of the page has its figures, and every selection of it exists.
    places = dict(re.findall(r'<div class="canvas" id="([^"]+)" data-controls="([^"]*)"', text))
    assert set(places) == set(figures)
    assert all(len(key.split("|")) == max(1, len(places[name].split())) for name in places for key in figures[name])
    assert not [entry.name for entry in run.iterdir() if entry.name.endswith(".tmp")]


def test_figures_show_what_the_run_wrote(run: Path) -> None:
    main(["report", str(run)])
    figures = figures_of(run / "report.html")
    lines = [json.loads(line) for line in (run / "importance/summary.jsonl").read_text().splitlines()]
    mine = [line for line in lines if (line["probe"], line["estimator"]) == ("heldout_text", "fisher")]
    heat = figures["heat-0"]["heldout_text|fisher|share"]["data"][0]
    assert heat["x"] == [str(step) for step in STEPS]
    for column, line in enumerate(mine):
        for layer, share in enumerate(line["shares"].values()):
            assert heat["z"][layer][column] == pytest.approx(100 * share, rel=1e-4)
    shift, null = figures["shift"]["heldout_text|fisher|js"]["data"]
    js = [line["shift"]["metrics"]["js"] for line in mine]
    assert shift["y"] == pytest.approx([m["corrected"] for m in js], rel=1e-4)
    for words, m in zip(shift["text"], js, strict=True):
        assert words.startswith(f"measured {m['value']:.3g}, noise alone {m['expected']:.3g}, paired p ")
    high = [y + above for y, above in zip(shift["y"], shift["error_y"]["array"], strict=True)]
    assert high == pytest.approx([m["high"] for m in js], rel=1e-3)
    assert null["y"] == pytest.approx([m["null_p95"] for m in js], rel=1e-4)
    rows = [json.loads(line) for line in (run / "evaluation/summary.jsonl").read_text().splitlines()]
    text = next(trace for trace in figures["accuracy"]["val"]["data"] if trace["name"] == "text")
    assert text["y"] == pytest.approx([100 * row["val/text_accuracy"] for row in rows])
    low = [y - below for y, below in zip(text["y"], text["error_y"]["arrayminus"], strict=True)]
    assert low == pytest.approx([100 * row["intervals"]["val/text_accuracy"][0] for row in rows], rel=1e-3)


def test_verdict_in_words(run: Path) -> None:
    findings = verdict(Run.open(run))
    assert headline(findings).startswith("It listens, and ")
    words = {finding.topic: finding for finding in findings}
    row = json.loads((run / "evaluation/summary.jsonl").read_text().splitlines()[-1])
    low, high = row["intervals"]["val/text_accuracy_kept"]
    kept = f"kept {100 * row['val/text_accuracy_kept']:.3g} % [{100 * low:.3g}, {100 * high:.3g}] of its text accuracy"
    assert kept in words["Text (validation)"].text
    assert "McNemar p = " in words["Text (validation)"].text
    assert words["Hearing (validation)"].mark == "good"
    assert not any(topic.startswith("Importance (") for topic in words)  # a table has them


def test_one_table_says_what_training_did_on_each_probe(run: Path) -> None:
    table = probe_table([Run.open(run)])
    assert table
    assert [(row[0], row[2]) for row in table.rows] == [
        (probe, estimator)
        for probe in ("indomain_text", "heldout_text", "speech")
        for estimator in ("taylor", "fisher")
    ]
    row = dict(zip(table.head, table.rows[2], strict=True))
    last = [json.loads(text) for text in (run / "importance/summary.jsonl").read_text().splitlines()]
    line = next(x for x in last if (x["probe"], x["estimator"], x["step"]) == ("heldout_text", "taylor", STEPS[-1]))
    assert row["p"] == "<= 0.005"
    assert row["half size"] == f"{line['shift']['metrics']['js']['null_p95']:.2g}"
    assert row["JS distance"] == with_limits(line["shift"]["metrics"]["js"])
    part = "of the 79 % of the decoder's parameters that are scored (not: fused experts)"
    assert table.note.endswith(f"Shares are {part}.")


def test_importance_is_called_unverified_until_it_was_verified(run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert "unverified: nobody has tested whether" in (tmp_path / "page.html").read_text(encoding="utf-8")
    checked = Path(shutil.copytree(run, tmp_path / "checked"))
    figures = {"shrink": 1.0, "precision": 0.5, "worst_missed": 0.02, "worst": 0.5}
    results = [
        {"score": "taylor", "spearman": 0.7, "low": 0.5, "high": 0.8, **figures},
        {"score": "magnitude", "spearman": 0.4, "low": 0.2, "high": 0.6, **figures},
        {"score": "random", "spearman": 0.0, "low": -0.2, "high": 0.2, **figures},
        {"score": "taylor", "spearman": 0.1, "low": 0.0, "high": 0.3, **figures, "shrink": 0.1},
    ]
    record = {"step": 20, "granularity": "matrix", "groups": ["a", "b"], "results": results}
    folder = checked / "importance" / "verification"
    folder.mkdir()
    (folder / "general_text_matrix.json").write_text(json.dumps(record))
    findings = {finding.topic: finding for finding in verdict(Run.open(checked))}
    found = findings["Importance check (matrix, step 20)"]
    assert found.mark == "good"
    assert "of taylor with the real change of the loss, when 2 groups are removed, is 0.70 [0.50, 0.80]" in found.text
    assert "magnitude 0.40 [0.20, 0.60]" in found.text
    assert not any("unverified" in finding.text for finding in findings.values())
    (folder / "general_text_matrix.json").write_text("{}")
    damaged = Run.open(checked)
    assert any("unverified" in finding.text for finding in verdict(damaged))
    assert any(note.startswith("importance/verification/general_text_matrix.json") for note in damaged.notes)


def test_what_was_measured_before_training_alone_is_no_verdict_on_hearing(tmp_path: Path) -> None:
    """An aligned adaptor hears at step 0; that says nothing of the run."""
    begun = write_run(tmp_path / "begun", steps=(0,), items=30, harm=0.0, parts=("evaluation",))
    findings = {finding.topic: finding for finding in verdict(Run.open(begun))}
    assert findings["Hearing (validation)"].mark == "plain"
    assert "only before training" in findings["Hearing (validation)"].text
    assert headline(list(findings.values())) == "Not yet compared with the untouched model."


def test_verdict_admits_what_an_interval_does_not_decide(tmp_path: Path) -> None:
    deaf = write_run(tmp_path / "deaf", steps=(0, 10), items=30, harm=0.0, parts=("evaluation",))
    path = deaf / "evaluation/summary.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["val/hearing_gap"], rows[-1]["intervals"]["val/hearing_gap"] = 0.01, [-0.1, 0.12]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = {finding.topic: finding for finding in verdict(Run.open(deaf))}
    assert findings["Hearing (validation)"].mark == "open"
    assert "no evidence that it listens" in findings["Hearing (validation)"].text
    assert (
        headline(list(findings.values())) == "It is not shown to listen, and its losses on text are exactly the same."
    )


def test_interval_and_test_are_of_the_same_questions(tmp_path: Path) -> None:
    """Also of those that were only written at the first step."""
    folder = tmp_path / "run" / "evaluation"
    for step in (0, 10):
        spoken = [Prediction(f"q{i}", "speech", prediction="x", correct=True) for i in range(0 if step else 9, 20)]
        written = [Prediction(f"q{i}", "text", prediction="x", correct=not step or i >= 12) for i in range(20)]
        store_evaluation(folder, "val", step, [*spoken, *written], 1.0)
    (found, _) = verdict(Run.open(tmp_path / "run"))
    assert found.mark == "bad"
    assert "; 12 lost, 0 gained, -60 [" in found.text


@pytest.mark.parametrize(("right", "flips"), [(4, 0), (0, 0), (3, 1), (1, 4)])
def test_few_questions_leave_it_undecided_whatever_a_summary_says(tmp_path: Path, right: int, flips: int) -> None:
    """Without a flip, and with as many as chance may give; runs of earlier versions hold limits that collapsed."""
    folder = tmp_path / "few" / "evaluation"
    for step in (0, 10):
        answers = [i < right for i in range(8)]
        if step:
            answers = [not correct if i >= 8 - flips else correct for i, correct in enumerate(answers)]
        records = [
            Prediction(f"q{i}", "text", prediction="x", correct=c, loss=2 - step / 100, tokens=3)
            for i, c in enumerate(answers)
        ]
        store_evaluation(folder, "val", step, records, 1.0)
    path = folder / "summary.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("val/text_accuracy_change", "val/text_accuracy_kept"):
        if name in rows[-1]:
            rows[-1]["intervals"][name] = [rows[-1][name]] * 2
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run.open(tmp_path / "few")
    (found,) = verdict(run)
    assert found.mark == "open"
    assert headline([found]) == "No change in its text accuracy is established."
    low, high = run.evaluations["val"].value(run.evaluations["val"].last, "text_accuracy_change")[1:]
    assert high - low > 0.3
    assert "[100, 100]" not in found.text


def test_test_questions_come_first_and_a_baseline_of_validation_still_counts(run: Path, tmp_path: Path) -> None:
    tested = Path(shutil.copytree(run, tmp_path / "tested"))
    source = tested / "evaluation" / f"step={STEPS[-1]:06d}.jsonl"
    store_evaluation(tested / "evaluation/test", "test", STEPS[-1], read_predictions(source), seconds=1.0)
    findings = verdict(Run.open(tested))
    assert [f.topic for f in findings[:2]] == ["Text (test)", "Speech (test)"]
    assert headline(findings) == headline(verdict(Run.open(run)))
    assert main(["report", str(tested)]) == 0
    assert set(figures_of(tested / "report.html")["accuracy"]) == {"val", "test"}


@pytest.mark.parametrize(
    ("parts", "steps", "expected"),
    [
        (("config",), (0,), ["No evaluation was found", "No importance measurement was found", "no verdict"]),
        (("config", "evaluation"), (0, 10), ["No importance measurement was found", "metrics.csv is missing"]),
        (("importance",), (0, 10), ["No evaluation was found", "config.yaml is missing"]),
        (("evaluation", "importance"), (0,), ["measured once", "Two evaluations of the same questions are needed"]),
        (("metrics",), (0, 10), ["Nothing has been measured yet"]),
    ],
)
def test_missing_parts_are_named(
    tmp_path: Path, parts: tuple[str, ...], steps: tuple[int, ...], expected: list[str]
) -> None:
    folder = write_run(tmp_path / "run", steps=steps, items=8, layers=2, parts=parts)
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    for words in expected:
        assert words in text


def test_damaged_parts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", steps=(0, 10), items=8, layers=2)
    (folder / "config.yaml").write_text("a: [1,")
    (folder / "importance/summary.jsonl").write_text('{"step": 0, "probe": "x"}\n')
    with (folder / "evaluation/summary.jsonl").open("a") as file:
        file.write('{"step": 20, "val/te')
    with (folder / "metrics.csv").open("a") as file:
        file.write("11,0,1.2")  # a row that is being written
    assert main(["report", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "config.yaml could not be read" in told
    assert "importance/summary.jsonl: 1 line could not be read (importance/summary.jsonl:1: KeyError" in told
    assert "evaluation/summary.jsonl: 1 line could not be read (summary.jsonl:3: not JSON" in told
    assert "training" in figures_of(folder / "report.html")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing does not exist; allowed: the directory of a run"),
        ("empty", "empty is not a run directory: it holds none of config.yaml, metrics.csv, importance, evaluation"),
        ("file.txt", "file.txt is a file, not a run directory"),
    ],
)
def test_what_is_no_run_gives_one_line(
    tmp_path: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    assert main(["report", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("textkeep: error: ")
    assert error.count("\n") == 1


def test_runs_side_by_side(run: Path, other: Path, tmp_path: Path) -> None:
    page = tmp_path / "sub" / "both.html"
    assert main(["report", str(run), str(other), "-o", str(page)]) == 0
    figures = figures_of(page)
    assert {"heat-0", "heat-1"} <= set(figures)
    ranges = [figures[f"heat-{i}"]["speech|taylor|change"]["data"][0] for i in (0, 1)]
    assert (ranges[0]["zmin"], ranges[0]["zmax"]) == (ranges[1]["zmin"], ranges[1]["zmax"])
    names = [trace["name"] for trace in figures["hearing"]["val"]["data"]]
    assert names == ["full", "lora"]
    runs = open_runs([run, other])
    difference = config_difference(runs)
    assert difference is not None
    assert ["model.optimizer.init_args.lr", "0.0001", "0.0002"] in difference.rows
    assert not [row for row in difference.rows if row[0] == "model.llm"]
    compared = paired_table(runs)
    assert compared is not None
    records = [
        {(r.id, r.modality): r.correct for r in e.predictions(e.last["step"])}
        for e in (r.evaluations["val"] for r in runs)
    ]
    gained = sum(records[1][key] > records[0][key] for key in records[0] if key[1] == "text")  # type: ignore[operator]
    row = next(row for row in compared.rows if row[1] == "text")
    assert int(row[4]) == gained
    assert float(row[8]) >= float(row[7])


def test_runs_of_the_same_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(run, tmp_path / "again" / "full"))
    names = [found.name for found in open_runs([run, twin])]
    assert len(set(names)) == 2
    assert names[1] == "again/full"
    assert [found.name for found in open_runs([run, run])] == [f"{names[0]} (1)", f"{names[0]} (2)"]


def test_flipped_items_are_listed_with_both_answers_and_escaped(run: Path) -> None:
    evaluation = Run.open(run).evaluations["val"]
    found = flips(evaluation)
    assert found
    for flip in found:
        assert flip.before.id == flip.after.id
        assert (flip.before.correct, flip.after.correct) == ((True, False) if flip.kind == "lost" else (False, True))
    main(["report", str(run)])
    text = (run / "report.html").read_text(encoding="utf-8")
    number = found[0].after.id.removeprefix("q").lstrip("0") or "0"
    assert f"What is the capital of land &lt;{number}&gt;?" in text
    assert f"land <{number}>" not in text


def test_an_unwritable_place_gives_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "-o", str(tmp_path)]) == 2
    assert "is a folder; allowed: the name of a file" in capsys.readouterr().err


def test_settings_are_flattened() -> None:
    config = {"a": {"b": 1, "c": None}, "list": [1, 2], "parts": [{"x": 1}, {"x": 2}], "empty": {}}
    assert flatten(config) == {
        "a.b": "1", "a.c": "null", "list": "[1, 2]", "parts.0.x": "1", "parts.1.x": "2", "empty": "{}",
    }  # fmt: skip


def test_settings_that_say_nothing_are_folded_away_and_one_more_callback_moves_no_other(
    run: Path, other: Path, tmp_path: Path
) -> None:
    runs = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in (run, other)]
    tracker = {"class_path": "callbacks.ImportanceTracker", "init_args": {"vectors": True, "probes": None}}
    stop = {"class_path": "callbacks.StopAtBudget", "init_args": {"limit": 0.1, "source": None}}
    for folder, callbacks in zip(runs, ([tracker], [stop, tracker]), strict=True):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["trainer"] |= {"callbacks": callbacks, "default_root_dir": str(folder)}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    table = config_difference(open_runs(runs))
    assert table is not None
    assert {row[0]: row[1:] for row in table.rows} == {
        "seed_everything": ["0", "1"],
        "model.optimizer.init_args.lr": ["0.0001", "0.0002"],
        "trainer.callbacks.StopAtBudget.class_path": ["-", "callbacks.StopAtBudget"],
        "trainer.callbacks.StopAtBudget.init_args.limit": ["-", "0.1"],
    }
    folded = [row[0].rpartition(".")[2] for row in table.folded]
    assert sorted(folded) == ["default_root_dir", "source"]
    assert main(["report", *map(str, runs)]) == 0
    page = (runs[0] / "comparison.html").read_text(encoding="utf-8")
    assert re.search(r"<details><summary>2 more: [^<]+</summary>.*StopAtBudget.init_args.source", page, re.DOTALL)


def test_a_comparison_leaves_the_page_of_the_first_run_alone(run: Path, other: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(run, tmp_path / "first"))
    assert main(["report", str(first), "--overwrite"]) == 0
    alone = (first / "report.html").read_text(encoding="utf-8")
    third = Path(shutil.copytree(other, tmp_path / "third"))
    for partner in (other, other, third):  # a page of its own may be replaced by one with another partner
        assert main(["report", str(first), str(partner)]) == 0
    assert "third" in (first / "comparison.html").read_text(encoding="utf-8")
    assert main(["report", str(first), str(other), "-o", str(first / "comparison.html")]) == 2
    assert (first / "report.html").read_text(encoding="utf-8") == alone
    assert main(["report", str(first)]) == 0


def test_code_in_sentences_is_shown_as_code(run: Path) -> None:
    assert coded("run `a <b>` & `c`") == "run <code>a &lt;b&gt;</code> &amp; <code>c</code>"
    main(["report", str(run)])
    page = (run / "report.html").read_text(encoding="utf-8")
    shown = re.sub(r"<(script|style|pre)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert "<code>textkeep importance verify RUN --data DATA</code>" in shown
    assert "`" not in shown


def test_one_step_is_the_only_mark_of_its_axis(tmp_path: Path) -> None:
    start = Run.open(write_run(tmp_path / "start", steps=(0,), items=10, layers=2))
    whole = Run.open(write_run(tmp_path / "whole", steps=(0, 10, 20), items=10, layers=2))
    for runs, marks in (([start], [0]), ([start, whole], None)):
        figure = accuracy(runs)
        assert figure is not None
        assert figure.drawn["val"]["layout"]["xaxis"].get("tickvals") == marks


def test_runs_are_told_apart_without_colours_and_probes_too(run: Path, other: Path) -> None:
    runs = open_runs([run, other])
    for make in (accuracy, answer_loss, hearing_gap, layer_ratio, profile, shift, probe_loss):
        figure = make(runs)
        assert figure is not None
        for drawn in figure.drawn.values():
            lines = [trace for trace in drawn["data"] if "lines+markers" in trace["mode"]]
            drawings = [(trace["marker"]["symbol"], trace["line"]["dash"]) for trace in lines]
            assert len(set(drawings)) == len(lines) > 1, figure.id
    both, alone = probe_loss(runs), probe_loss(runs[:1])
    assert both is not None
    assert alone is not None
    assert [trace["name"] for trace in both.drawn["speech"]["data"]] == ["full", "lora"]
    assert len({trace["line"]["color"] for trace in alone.drawn[""]["data"]}) == 3


def test_numbers_are_short_and_always_json() -> None:
    assert rounded({"a": [1 / 3, math.nan, math.inf, 7, True, None, "x"], "b": (2.0,)}) == {
        "a": [0.33333, None, None, 7, True, None, "x"],
        "b": [2.0],
    }

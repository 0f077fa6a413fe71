"""What is there stays, whatever command would write to the same place, unless ``--overwrite`` is given."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from tests.support import tone_engine
from textkeep.cli.importance.command import COMMANDS
from textkeep.cli.main import VERBS, main
from textkeep.foundation.outputs import check_output
from textkeep.preparation.speech import clips
from textkeep.preparation.speech.engine import ENGINES
from textkeep.runs.report.page_file import is_page_about, is_page_from, write_page

TAKEN = {
    "adaptor": ["adaptor", "RUN", "-o", "{weights}"],
    "benchmark": ["benchmark", "MODEL", "-o", "{file}"],
    "export": ["export", "RUN", "-o", "{export}"],
    "facts": ["facts", "{folder}"],
    "facts, one file": ["facts", "{file}", "--choices"],
    "attribute": ["importance", "attribute", "A", "B", "--data", "D", "-o", "{file}"],
    "compare": ["importance", "compare", "A", "B", "-o", "{file}"],
    "overlap": ["importance", "overlap", "S", "A", "B", "-o", "{file}"],
    "probe": ["importance", "probe", "MODEL", "--data", "D", "-o", "{snapshot}"],
    "probe, picture": ["importance", "probe", "MODEL", "--data", "D", "-o", "new", "--plot", "{picture}"],
    "removal": ["importance", "removal", "MODEL", "--data", "D", "--plot", "{picture}"],
    "show": ["importance", "show", "S", "--plot", "{picture}"],
    "verify": ["importance", "verify", "MODEL", "--data", "D", "-o", "{file}"],
    "report": ["report", "{run}", "-o", "{file}"],
    "report, own place": ["report", "{run}"],
    "rewrite": ["rewrite", "M", "-o", "{manifest}", "--llm", "L"],
}
WRITES = {"-o", "--plot", "--figures", "--pack"}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """One of each kind of thing that commands write, made by somebody else."""
    files = {
        "file": "a.json",
        "picture": "a.png",
        "manifest": "a.jsonl",
        "weights": "a.safetensors",
        "export": "export/textkeep.json",
        "snapshot": "snapshot/meta.json",
        "folder": "folder/test.jsonl",
        "run": "run/report.html",
    }
    for name in files.values():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("of another run")
    (tmp_path / "run/config.yaml").write_text("trainer: {}\n")
    return {key: tmp_path / Path(name).parts[0] for key, name in files.items()}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_there_stays(case: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.format(**places) for word in TAKEN[case]]) == 2
    error = capsys.readouterr().err
    assert "exists; allowed: a new name, or --overwrite to replace it" in error
    assert error.count("\n") == 1
    assert case != "report, own place" or "report: -o" not in error
    kept = [path for path in places["run"].parent.rglob("*") if path.is_file() and path.name != "config.yaml"]
    assert len(kept) == len(places)
    assert {path.read_text() for path in kept} == {"of another run"}


def test_every_command_that_writes_has_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parsed(Exception):  # noqa: N818
        pass

    def parse(self: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    targets = [verb.target for verb in VERBS.values() if not verb.target.startswith(".training_verbs")]
    targets += [f".importance{module}:main" for module, _ in COMMANDS.values()]
    writing = []
    for target in targets:
        module, function = target.split(":")
        with pytest.raises(Parsed) as caught:
            getattr(import_module(module, package="textkeep.cli"), function)([])
        flags = set(caught.value.args[0]._option_string_actions)
        assert not flags & WRITES or "--overwrite" in flags, target
        writing += [target] if flags & WRITES else []
    assert len(writing) >= 14


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_output("-o", tmp_path / "new" / "deep" / "x.json", overwrite=False)
    check_output("-o", tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    check_output("-o", tmp_path / "empty", overwrite=False, folder=True)
    for path, folder, message in (
        (tmp_path / "file" / "x.json", False, "file is a file; allowed: a file below a folder"),
        (tmp_path, False, "is a folder; allowed: the name of a file"),
        (tmp_path / "file", True, "is a file; allowed: the name of a folder"),
        (tmp_path, True, "exists; allowed: a new name"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output("-o", path, overwrite=False, folder=folder)


def test_a_page_about_the_same_runs_is_made_anew_wherever_they_were_moved_to(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    one, two = tmp_path / "runs/a", tmp_path / "runs/b"
    write_page("<html>", one / "report.html", [one, two])
    assert is_page_about(one / "report.html", [one, two])
    assert not is_page_about(one / "report.html", [one])
    assert not is_page_about(one / "report.html", [one, tmp_path / "b"])
    assert is_page_from(one / "report.html", one)
    assert not is_page_from(one / "report.html", two)
    write_page("<html>", one / "of two.html", [two])
    assert is_page_from(one / "of two.html", two)
    assert not is_page_from(one / "of two.html", one)
    (one / "note.html").write_text("<html>")
    assert not is_page_from(one / "note.html", one)
    assert not is_page_from(one / "none.html", one)
    moved = (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert is_page_about(moved / "a/report.html", [moved / "a", moved / "b"])


def speak(questions: dict[str, str], folder: Path, *options: str, voices: str = "tone:low,tone:mid") -> int:
    manifest = folder / "in/qa.jsonl"
    manifest.parent.mkdir(exist_ok=True)
    rows = [{"id": key, "question": text, "answers": ["x"]} for key, text in questions.items()]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return main(["speak", str(manifest), str(folder / "out"), "--voices", voices, "--workers", "1", *options])


def test_speak_goes_on_with_its_own_manifest_and_replaces_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENGINES, "tone", f"{tone_engine.__name__}:ToneEngine")
    monkeypatch.setattr(clips, "_engines", {})
    first = {f"q{i}": f"How far is {i}?" for i in range(4)}
    out = tmp_path / "out/qa.jsonl"
    assert speak(first, tmp_path) == 0
    made = out.read_text()
    assert speak(first, tmp_path) == 0
    assert out.read_text() == made
    assert speak({**first, "q4": "How far is it?"}, tmp_path) == 0  # more of the same
    grown = out.read_text()
    capsys.readouterr()
    for questions, voices, message in (
        ({"p0": "Who is it?"}, "tone:low,tone:mid", "'q0', which is not among the questions now"),
        (first, "tone:low,tone:mid", "'q4', which is not among the questions now"),
        ({**first, "q4": "How far is it?"}, "tone:high", "all in another voice or wording"),
    ):
        assert speak(questions, tmp_path, voices=voices) == 2
        assert message in capsys.readouterr().err
        assert out.read_text() == grown
    assert speak({"p0": "Who is it?"}, tmp_path, "--overwrite") == 0
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["p0"]


def test_speak_never_replaces_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENGINES, "tone", f"{tone_engine.__name__}:ToneEngine")
    manifest = tmp_path / "qa.jsonl"
    manifest.write_text('{"id": "a", "question": "Who?", "answers": ["x"]}\n')
    for more in ([], ["--overwrite"]):
        assert main(["speak", str(manifest), str(tmp_path), "--voices", "tone:low", *more]) == 2
        assert "would be replaced; allowed: another folder" in capsys.readouterr().err
    assert "Who?" in manifest.read_text()


def test_a_test_on_other_questions_replaces_no_earlier_one(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/t"
    main(["fit", "--config", str(tiny_config), "--trainer.max_steps", "1", "--trainer.logger", "false"])
    more = {
        "trainer": {
            "logger": False,
            "callbacks": [
                {"class_path": "Retention", "init_args": {"metrics": ["loss"]}},
                {"class_path": "EvaluationSuite", "init_args": {"evaluations": {"s": {"class_path": "PlainTextLoss"}}}},
            ],
        }
    }
    more["trainer"]["callbacks"][1]["init_args"]["evaluations"]["s"]["init_args"] = {"limit": 2}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(more))
    words = ["--config", str(run / "config.yaml"), "--config", str(tmp_path / "more.yaml"), "--ckpt_path", "last"]
    only = ["--trainer.callbacks", "Retention", "--trainer.callbacks.metrics", '["loss"]']
    records = run / "evaluation/test/step=000001.jsonl"
    assert main(["test", *words]) == 0
    six = records.read_text()
    assert six.count("\n") == 12
    capsys.readouterr()
    assert main(["test", *words, *only, "--data.eval_limit", "4"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{records} holds answers to 6 questions already, and 4 would be asked; allowed: the same" in error
    assert records.read_text() == six
    assert main(["test", *words, *only]) == 0  # the same questions can be had again
    assert main(["test", *words]) == 2
    assert "test/s/step=000001.jsonl holds the records of an earlier call" in capsys.readouterr().err
    assert main(["test", *words, *only, "--data.eval_limit", "4", "--overwrite"]) == 0
    assert records.read_text().count("\n") == 8
    assert main(["validate", *words]) == 0  # the fit wrote none
    assert main(["validate", *words, "--data.eval_limit", "3"]) == 2
    assert not (run / "error.txt").exists()


def test_predictions_are_rows_of_the_data_set(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/t"
    main(["fit", "--config", str(tiny_config), "--trainer.max_steps", "1", "--trainer.logger", "false"])
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"] = {**settings["data"], "predict": None, "tokens_per_batch": 160}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ["predict", "--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    assert main(words) == 0
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [(line["id"], line["modality"]) for line in lines] == [
        (f"q{i}", m) for i in range(6) for m in ("speech", "text")
    ]
    assert list(lines[0]) == ["id", "modality", "question", "answers", "prediction", "correct"]
    assert lines[0]["question"] == "What is the capital of France?"
    assert lines[0]["answers"] == ["Paris"]
    assert {line["correct"] for line in lines} <= {True, False}
    before = (run / "predictions.jsonl").read_text()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "predictions.jsonl holds the answers of an earlier prediction; allowed: another --trainer" in error
    assert (run / "predictions.jsonl").read_text() == before
    questions = tmp_path / "ask.jsonl"
    questions.write_text('{"id": "new", "question": "What is the capital of Peru?"}\n')
    assert main([*words, "--data.predict", str(questions), "--overwrite"]) == 0
    (line,) = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert (line["id"], line["answers"], line["correct"]) == ("new", [], None)
    assert sorted(path.name for path in run.iterdir() if "prediction" in path.name) == ["predictions.jsonl"]

"""``textkeep speak --heldout-voices``: who speaks what, and voices that must not be heard on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tone_engine
from textkeep.cli.main import main
from textkeep.preparation.speech import clips
from textkeep.preparation.speech.engine import ENGINES
from textkeep.preparation.speech.heldout import heldout_ids
from textkeep.preparation.speech.rows import read_questions

Speak = Callable[..., int]


def write(path: Path, count: int = 12, **keys: Any) -> Path:
    """A text manifest without audio; ids tell the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"id": f"{path.stem}-{i}", "question": f"How far is {i}?", "answers": ["far"]} | keys for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Speak:
    monkeypatch.setitem(ENGINES, "tone", f"{tone_engine.__name__}:ToneEngine")
    monkeypatch.setattr(clips, "_engines", {})

    def run(*arguments: object, voices: str = "tone:low,tone:mid", heldout: str = "tone:high") -> int:
        options = ["--voices", voices, "--heldout-voices", heldout, "--workers", "1", "--format", "wav"]
        return main(["speak", *map(str, arguments), str(tmp_path / "out"), *options])

    return run


def voices(path: Path) -> set[str]:
    return {json.loads(line)["voice"] for line in path.read_text().splitlines()}


def test_files_say_by_their_names_what_they_are_for(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [write(tmp_path / f"{name}.jsonl") for name in ("train", "val", "my_test-clean")]
    assert speak(*inputs) == 0
    assert voices(tmp_path / "out" / "train.jsonl") == {"tone:low", "tone:mid"}
    assert voices(tmp_path / "out" / "val.jsonl") == voices(tmp_path / "out" / "my_test-clean.jsonl") == {"tone:high"}
    told = capsys.readouterr()
    assert "train.jsonl: 12 of 12 questions, 0 by held-out voices" in told.out
    assert "val.jsonl: 12 of 12 questions, 12 by held-out voices" in told.out
    assert "warning" not in told.err
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    assert speak(*reversed(inputs)) == 0  # the same voices in any order of the inputs
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")} == first


@pytest.mark.parametrize(
    ("name", "split", "heldout"),
    [
        ("train", None, False),
        ("train-clean-100", None, False),
        ("Training.Set", None, False),
        ("val", None, True),
        ("valid", None, True),
        ("validation_v2", None, True),
        ("dev2", None, True),
        ("EVAL", None, True),
        ("questions", "Train", False),
        ("questions", "validation", True),
        ("questions", "test_clean", True),
        ("train_and_test", "train", False),
        ("train_and_test", "test", True),
        ("contest", "train", False),
        ("test", "validation", True),
    ],
)
def test_names_and_splits(tmp_path: Path, name: str, split: str | None, heldout: bool) -> None:
    path = write(tmp_path / f"{name}.jsonl", 2, **({"split": split} if split else {}))
    assert bool(heldout_ids(read_questions([path]))) is heldout


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("questions", {}, 'no "split" and the name questions.jsonl do not tell training from test'),
        ("questions", {"split": "general"}, "\"split\" 'general' and the name questions.jsonl do not tell"),
        ("train_and_test", {}, 'no "split" and the name train_and_test.jsonl do not tell'),
        ("val", {"split": "train"}, "\"split\" is 'train' in a file named val.jsonl"),
        ("train", {"split": "test"}, "\"split\" is 'test' in a file named train.jsonl"),
    ],
)
def test_what_cannot_be_told_is_asked_for(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, keys: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / f"{name}.jsonl", 2, **keys)
    assert speak(path) == 2
    told = capsys.readouterr().err
    assert f"{path}:1: {message}" in told
    assert "--heldout-files" in told
    assert not (tmp_path / "out").exists()
    assert speak(path, "--heldout-files", path.name) == 0
    assert voices(tmp_path / "out" / path.name) == {"tone:high"}


def test_named_files_alone_are_held_out(speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = write(tmp_path / "one.jsonl"), write(tmp_path / "val.jsonl")
    assert speak(one, two, "--heldout-files", one) == 0
    assert voices(tmp_path / "out" / "one.jsonl") == {"tone:high"}
    assert voices(tmp_path / "out" / "val.jsonl") == {"tone:low", "tone:mid"}
    assert speak(one, two, "--heldout-files", "three.jsonl") == 2
    assert "--heldout-files: three.jsonl is not an input (allowed: " in capsys.readouterr().err
    assert speak(one, "--heldout-files", "one.jsonl", heldout="") == 2
    assert "--heldout-files needs --heldout-voices" in capsys.readouterr().err


def test_nothing_held_out_is_a_warning(speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speak(write(tmp_path / "train.jsonl")) == 0
    expected = "warning: no line of train.jsonl is for validation or test: --heldout-voices speak nothing"
    assert expected in capsys.readouterr().err
    assert voices(tmp_path / "out" / "train.jsonl") == {"tone:low", "tone:mid"}


def test_without_held_out_voices_nothing_is_asked(speak: Speak, tmp_path: Path) -> None:
    assert speak(write(tmp_path / "questions.jsonl"), heldout="") == 0


def test_voices_of_earlier_manifests_stay_on_their_side(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, val = write(tmp_path / "train.jsonl"), write(tmp_path / "val.jsonl")
    assert speak(train) == 0
    assert speak(val, voices="tone:high", heldout="tone:low") == 2
    told = capsys.readouterr().err
    assert "train.jsonl:" in told
    assert "is for training and spoken by tone:low, which --heldout-voices names too" in told
    assert not (tmp_path / "out" / "val.jsonl").exists()
    assert speak(val) == 0
    assert speak(write(tmp_path / "train_more.jsonl"), voices="tone:high", heldout="tone:mute") == 2
    assert "is for validation or test and spoken by tone:high, which --voices names too" in capsys.readouterr().err


def test_compressed_questions_become_a_plain_manifest(speak: Speak, tmp_path: Path) -> None:
    import gzip

    path = write(tmp_path / "val.jsonl", 2)
    (tmp_path / "val.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    assert speak(tmp_path / "val.jsonl.gz") == 0
    assert voices(tmp_path / "out" / "val.jsonl") == {"tone:high"}


@pytest.mark.parametrize(
    "line", ['{"id": true, "question": "a"}', '{"id": "", "question": "a"}', '{"id": 1, "question": 5}']
)
def test_ids_and_questions_are_checked(
    speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "val.jsonl").write_text(f'{{"id": 0, "question": "b"}}\n{line}\n')
    assert speak(tmp_path / "val.jsonl") == 2
    assert "val.jsonl:2: a line must be an object with an id and a question" in capsys.readouterr().err

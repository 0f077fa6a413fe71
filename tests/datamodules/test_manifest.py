from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textkeep.datamodules.sources.bad_examples import BadExampleError, BadExamples
from textkeep.datamodules.sources.manifest import Manifest

from .conftest import ManifestMaker

GOOD = {"id": "a", "question": "What?", "answers": ["This", "that"]}


def test_reads_every_field(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    path = make_manifest(3, voice="kal", target="It is so.", system="Be brief.")
    examples = Manifest(str(path)).read(BadExamples())
    assert [example.id for example in examples] == ["questions-0", "questions-1", "questions-2"]
    first = examples[0]
    assert first.question == "What is 0 plus 0?"
    assert (first.answers, first.target, first.system) == (("0",), "It is so.", "Be brief.")
    assert first.audio == tmp_path / "clips" / "questions-0.wav"
    assert first.metadata == {"seconds": 0.5, "voice": "kal"}
    assert first.source == "questions"
    assert first.location == f"{path}:1"


def test_target_defaults_to_the_first_answer_and_text_needs_no_clip(write_lines: Callable[..., Path]) -> None:
    (example,) = Manifest(str(write_lines("", GOOD, ""))).read(BadExamples())
    assert (example.target, example.audio) == ("This", None)
    assert example.has("text")
    assert not example.has("speech")


def test_use_audio_false_reads_text_only(make_manifest: ManifestMaker) -> None:
    examples = Manifest(str(make_manifest(2)), use_audio=False).read(BadExamples())
    assert all(example.audio is None for example in examples)


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        ("{not json", "bad json", "not JSON"),
        ("[1, 2]", "bad json", "a JSON list; allowed: one object per line"),
        (GOOD | {"id": "first"}, "duplicate id", "id 'first' was already used at"),
        ({"question": "What?", "answers": ["x"]}, "missing id", '"id" is None; allowed: a string that is not empty'),
        (GOOD | {"question": " "}, "empty question", "\"question\" is ' '; allowed: text that is not empty"),
        (GOOD | {"answers": []}, "empty answer", '"answers" is []; allowed: a list of at least one text'),
        (GOOD | {"answers": ["x", ""]}, "empty answer", "none of them empty"),
        (GOOD | {"target": True}, "wrong type", '"target" is True; allowed: text'),
        (GOOD | {"audio": 3}, "wrong type", '"audio" is 3; allowed: a path relative to'),
        (GOOD | {"audio": "no.wav"}, "missing file", "'no.wav' does not exist under"),
        (GOOD | {"audio": "../x.wav"}, "path outside its root", "'../x.wav' leads out of"),
        (GOOD | {"audio": "/etc/hosts"}, "path outside its root", "allowed: a path under it"),
    ],
)
def test_bad_lines_are_named_or_skipped(write_lines: Callable[..., Path], line: Any, reason: str, message: str) -> None:
    path = write_lines(GOOD | {"id": "first"}, line)
    with pytest.raises(BadExampleError) as caught:
        Manifest(str(path)).read(BadExamples("raise"))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "allowed:" in str(caught.value)
    bad = BadExamples("skip")
    with pytest.warns(UserWarning, match="skipped: "):
        kept = Manifest(str(path)).read(bad)
    assert [example.id for example in kept] == ["first"]
    assert dict(bad.counts) == {reason: 1}


def test_a_missing_manifest_and_a_wrong_policy_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such manifest"):
        Manifest(str(tmp_path / "none.jsonl")).read(BadExamples())
    with pytest.raises(ValueError, match="on_bad_example: 'ignore' is not known"):
        BadExamples("ignore")  # type: ignore[arg-type]


def test_a_bad_example_is_counted_once_however_often_it_is_met() -> None:
    bad = BadExamples("skip")
    with pytest.warns(UserWarning, match="only counted"):
        bad.report(BadExampleError("corrupt clip", "m:1", "no"))
    bad.report(BadExampleError("corrupt clip", "m:1", "no"))
    bad.report(BadExampleError("corrupt clip", "m:2", "no"))
    assert dict(bad.counts) == {"corrupt clip": 2}


def test_reading_is_fast(write_lines: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "c.wav").touch()
    lines = [GOOD | {"id": str(i), "audio": "c.wav", "seconds": 1.0} for i in range(5000)]
    path = write_lines(*lines)
    start = time.process_time()
    assert len(Manifest(str(path)).read(BadExamples())) == 5000
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({"id": "a", "question": "Who?", "answer": "x"}, '"answers" is None; there is "answer", which should be named'),
        ({"id": "a", "question": "Who?", "Answers": ["x"]}, 'there is "Answers", which should be named "answers"'),
        ({"id": "a", "prompt": "Who?", "answers": ["x"]}, 'there is "prompt", which should be named "question"'),
        ({"ID": "a", "question": "Who?", "answers": ["x"]}, 'there is "ID", which should be named "id"'),
        ({"id": "a", "question": "Who?", "voice": "x"}, '"answers" is None; allowed'),
        ({"id": "a", "question": "Who?", "answers": [], "answer": "x"}, '"answers" is []; allowed'),
    ],
)
def test_a_key_of_another_name_is_named(write_lines: Callable[..., Path], line: Any, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        Manifest(str(write_lines(line))).read(BadExamples())

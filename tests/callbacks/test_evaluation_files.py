"""What evaluations read from files: a mistake is named with its line, and no text is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from textkeep.callbacks.evaluations.choices_by_letter import ChoicesByLetter
from textkeep.callbacks.evaluations.evaluation import require_options
from textkeep.callbacks.evaluations.instruction_following import _instructions as instructions
from textkeep.callbacks.evaluations.plain_text_loss import _read as read_texts
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.manifest import Manifest
from textkeep.evaluation import Prediction, read_predictions, write_predictions
from textkeep.evaluation.text_benchmarks import _known


def example(folder: Path, **row: Any) -> Any:
    """The item of a set of one line."""
    (folder / "set.jsonl").write_text(json.dumps({"id": "a", "question": "Q?"} | row))
    (found,) = Manifest(str(folder / "set.jsonl")).read(BadExamples(), answers_required=False)
    return found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"choices": "abc", "gold": 0}, "\"choices\" is 'abc'; allowed: a list of two or more texts"),
        ({"choices": 3, "gold": 0}, '"choices" is 3'),
        ({"choices": ["a"], "gold": 0}, "\"choices\" is ['a']"),
        ({"choices": ["a", 1], "gold": 0}, "\"choices\" is ['a', 1]"),
        ({"choices": ["a", "b"], "gold": True}, '"gold" is True; allowed: 0 to 1'),
        ({"choices": ["a", "b"], "gold": 2}, '"gold" is 2'),
        ({"choices": ["a", "b"], "gold": "1"}, "\"gold\" is '1'"),
        ({"choices": ["a", "b"]}, '"gold" is None'),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    item = example(tmp_path, **row)
    for ask in (ChoicesByLetter()._asked, lambda found: require_options(found, "choices")):
        with pytest.raises(ValueError, match=re.escape(f"set.jsonl:1: {message}")):
            ask(item)


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        (["a"], "[{", r'set\.jsonl:1: "kwargs": not JSON \(.*\); allowed: a list of objects'),
        (["a"], [], "must be lists of one length"),
        ("a", [{}], "must be lists of one length"),
        ([1], [{}], '"instruction_id_list" holds texts'),
        (["a"], [3], '"kwargs" objects or null'),
    ],
)
def test_wrong_instructions_are_named(tmp_path: Path, ids: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instructions(example(tmp_path, instruction_id_list=ids, kwargs=kwargs))


def test_instructions_may_be_json_in_a_cell(tmp_path: Path) -> None:
    item = example(tmp_path, instruction_id_list=["a", "b"], kwargs='[{"n": 1}, null]')
    assert instructions(item) == (["a", "b"], [{"n": 1}, {}])


def test_texts_keep_their_ids_and_a_repeated_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prose.jsonl"
    path.write_text(
        '{"text": "one"}\n\n{"id": null, "text": " two\u2028"}\n{"id": "c", "text": " "}\n', encoding="utf-8"
    )
    assert read_texts(str(path)) == {"1": ("one", ""), "3": ("two", "")}
    path.write_text('{"id": 1, "text": "one"}\n{"id": "1", "text": "two"}\n')
    with pytest.raises(ValueError, match=r"prose\.jsonl:2: id '1' was used before"):
        read_texts(str(path))
    path.write_text('{"id": 1, "text": 7}\n')
    with pytest.raises(ValueError, match=r'prose\.jsonl:1: "text" is 7'):
        read_texts(str(path))


def test_passages_of_a_text_file_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "prose.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\nmore\r\n\r\n\r\n \r\ntwo\r\n")
    assert read_texts(str(path)) == {"1": ("one\nmore", ""), "2": ("two", "")}
    path.write_bytes(b"one\n\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"prose\.txt:3: not UTF-8"):
        read_texts(str(path))


def test_answers_with_any_character_are_written_and_read(tmp_path: Path) -> None:
    answers = ["one\u2028two", "next\u0085line", "\u2029", "NUL \0", "\x1c\x0b\x0c", "\ufeff", "\r\n"]
    records = [Prediction(str(i), "text", prediction=answer) for i, answer in enumerate(answers)]
    write_predictions(tmp_path / "step=000000.jsonl", records)
    assert read_predictions(tmp_path / "step=000000.jsonl") == records


def test_a_task_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    manager = SimpleNamespace(all_tasks=["known"])
    path = tmp_path / "task.yaml"
    path.write_text("task: mine\ncustom_dataset: !function data.load\n")
    _known(str(path), manager)
    path.write_text("task: mine\n  output: [1\n")
    with pytest.raises(ValueError, match=r"task\.yaml:2: .*allowed: a task of lm-eval"):
        _known(str(path), manager)
    path.write_bytes(b"task: mine\n# caf\xe9\n")
    with pytest.raises(ValueError, match=r"task\.yaml:2: not UTF-8"):
        _known(str(path), manager)

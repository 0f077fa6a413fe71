from __future__ import annotations

import json
from pathlib import Path

import pytest

from textkeep.evaluation import Prediction, forget_after, read_lines, read_predictions, write_predictions
from textkeep.foundation.files import write_json_lines


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = [
        Prediction("q1", "speech", "Où?", ("Nîmes", "Nimes"), "à Nîmes\nje crois", True, 1 / 3, 3, 0.7, "s", "c"),
        Prediction("q1", "text", "Où?", ("Nîmes",)),
    ]
    path = tmp_path / "evaluation" / "step=000120.jsonl"
    write_predictions(path, records)
    assert read_predictions(path) == records
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no temporary file left


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_json_lines([{"a": 1}], path)
    with pytest.raises(TypeError):
        write_json_lines([{"a": 2}, {"a": object()}], path)
    assert [row for _, row in read_lines(path)] == [{"a": 1}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_json_lines([{"a": float("nan"), "b": {"c": [float("inf"), 1.0]}}], tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"a": None, "b": {"c": [None, 1.0]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a", "modality": "text"}\n{"id": ', r"bad\.jsonl:2: not JSON"),
        ("\n[1]\n", r"bad\.jsonl:2: a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


def test_missing_and_unknown_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_json_lines([{"id": "a", "modality": "text", "later": 1}, {"id": "a"}], path)
    with pytest.raises(ValueError, match=r"a\.jsonl:2: a prediction needs modality"):
        read_predictions(path)


def test_answers_of_later_steps_go_with_their_lines_and_those_without_a_line_too(tmp_path: Path) -> None:
    lines = [{"step": step} for step in (0, 10, 20)]
    (tmp_path / "summary.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (0, 10, 20, 30):  # 30 was lost between its answers and its line
        (tmp_path / f"step={step:06d}.jsonl").write_text("{}\n")
    forget_after(tmp_path, 10)
    assert [json.loads(line)["step"] for line in (tmp_path / "summary.jsonl").read_text().splitlines()] == [0, 10]
    assert sorted(path.name for path in tmp_path.glob("step=*")) == ["step=000000.jsonl", "step=000010.jsonl"]
